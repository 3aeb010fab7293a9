// SPDX-License-Identifier: Apache-2.0
// Which exports are there, and is an exported folder whole? Somebody may have moved its weights, a copy may have been
// cut short.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace amalgam {

/// Names of the folders of a run that hold an export, in the order of the formats.
std::vector<std::string> exports_in(const std::filesystem::path& run_folder);

/// What the folder lacks, as a sentence; empty if nothing: all tensors of its files lie within them, its JSON files can
/// be read, and it has a tokenizer.json if the teacher has one.
std::string missing_in_export(const std::filesystem::path& folder, const std::filesystem::path& teacher_folder);

}  // namespace amalgam
