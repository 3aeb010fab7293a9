// SPDX-License-Identifier: Apache-2.0
// A teacher's folder, looked at before anything is loaded: config.json and the headers of its weights, held against
// what the model needs. The rules are those of transformers' from_pretrained, or the folder is refused.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "specification/model_config.h"
#include "storage/safetensors.h"

namespace amalgam {

struct TeacherFolder {
    std::filesystem::path folder;
    /// As config.json says, but for the head: tie_word_embeddings is taken back where the file has a head that differs
    /// from the embedding.
    ModelConfig config;
    /// All that the model needs and nothing else, under its own names ("model." is added where the file leaves it out).
    std::map<std::string, SafetensorsEntry> tensors;
    /// What somebody should know: tensors that nobody reads, a head that is its own against the config.
    std::vector<std::string> notes;
};

/// Reads headers, and the values of head and embedding where both are there but should be one. Throws Error(bad_input)
/// naming file, key or tensors: what read_config refuses, quantised weights, tensors that are missing or have another
/// shape than the config says, adapters; Error(damaged_file) for damaged headers. `tied`: the head is the embedding, as
/// somebody knows who has read the folder before; values are then not compared again.
TeacherFolder read_teacher_folder(const std::filesystem::path& folder, std::optional<bool> tied = std::nullopt);

}  // namespace amalgam
