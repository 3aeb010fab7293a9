// SPDX-License-Identifier: Apache-2.0
// What a run was made from: the file inputs.json in its folder has a fingerprint of every input file that results
// depend on, and each start compares. Changed inputs would give results that belong to no job.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "job/job.h"

namespace amalgam {

struct InputFile {
    std::string key;   // of the job file: teacher.path, data.training, ...
    std::string name;  // in the teacher's folder; else of the file
    int64_t bytes = 0;
    std::string digest;  // storage/content_digest.h

    bool operator==(const InputFile&) const = default;
};

/// Of all input files of the job that are there, as they are now. Throws Error(bad_input, damaged_file).
std::vector<InputFile> look_at_input_files(const Job& job);

/// Throws Error(storage).
void write_inputs(const std::filesystem::path& run_folder, const std::vector<InputFile>& inputs);
/// None if the run is of a version of the program that did not write them. Throws Error(damaged_file).
std::optional<std::vector<InputFile>> read_inputs(const std::filesystem::path& run_folder);

/// `other` with the paths of `job` for those input keys of both `where` this is true: one file has many paths
/// (relative, through links, copied elsewhere), which make no other job.
Job with_paths_of(const Job& job, Job other, const std::function<bool(const std::string& key)>& where);

/// How inputs of one key have changed, a line for each file; empty if they have not. Where they lie does not count.
std::string difference(const std::vector<InputFile>& before, const std::vector<InputFile>& now, const std::string& key);

/// Are there files of this key, and are they the same?
bool is_same(const std::vector<InputFile>& before, const std::vector<InputFile>& now, const std::string& key);

/// The keys that input files have, in their order. Files of a teacher that only exports copy have a key of their own.
const std::vector<std::string>& input_keys();
inline constexpr const char* texts_of_teacher = "teacher.path (files for text)";

}  // namespace amalgam
