// SPDX-License-Identifier: Apache-2.0
// Is an exported folder whole? Somebody may have moved its weights, a copy may have been cut short.
#pragma once

#include <filesystem>
#include <string>

namespace amalgam {

/// What the folder lacks, as a sentence; empty if nothing: all tensors of its files lie within them, its JSON files can
/// be read, and it has a tokenizer.json if the teacher has one.
std::string missing_in_export(const std::filesystem::path& folder, const std::filesystem::path& teacher_folder);

}  // namespace amalgam
