// SPDX-License-Identifier: Apache-2.0
// The files of a teacher's folder that say how text becomes tokens and back, and how the model is asked: they come
// along into every export.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

namespace amalgam {

/// Throws Error(bad_input) naming the file that cannot be copied or, where it is JSON, not be read: what an export
/// would find out last. Needs no LibTorch.
void expect_tokenizer_files(const std::filesystem::path& teacher);

/// Copies them, chat templates in additional_chat_templates/ included, over those of an earlier export. tokenizer.json
/// is to be taken as it stands: for the exported model_type transformers would otherwise put another family's splitting
/// rules around the vocabulary. Throws Error(bad_input), Error(storage).
void copy_tokenizer_files(const std::filesystem::path& teacher, const std::filesystem::path& target);

/// The keys of a JSON file of the teacher; none if there is no such file. Throws Error(bad_input).
nlohmann::ordered_json read_settings(const std::filesystem::path& path);

}  // namespace amalgam
