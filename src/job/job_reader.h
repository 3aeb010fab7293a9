// SPDX-License-Identifier: Apache-2.0
// Job files (YAML) to Job. All mistakes of a file are reported in one Error(bad_input), each with file, line, key, what
// was found and what is allowed. Nothing is checked here that needs more than the value itself: job_check.h does the
// rest.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

/// Reads a job file. `overrides` are the texts after --set on the command line, "align.tokens=1000000"; they win over
/// the file, and of two for the same key the later one wins. Relative paths in it mean the current directory, not the
/// file's; ~ and $NAME in paths are expanded (path_expansion.h).
Job read_job(const std::filesystem::path& path, const std::vector<std::string>& overrides = {});

/// The job.yaml of a run folder, in which all keys are written. Throws Error(damaged_file) if it ends too early or
/// holds anything that the program would not have written.
Job read_resolved_job(const std::filesystem::path& path);

/// A job from a text, for example the resolved job that a result file carries. `name` stands for the file in
/// messages.
Job parse_job(const std::string& yaml, const std::string& name, const std::vector<std::string>& overrides = {});

}  // namespace amalgam
