// SPDX-License-Identifier: Apache-2.0
// A run's own job.yaml, the record of what it is made by: the resolved job, sealed with a checksum.
#pragma once

#include <filesystem>

#include "job/job.h"

namespace amalgam {

/// Throws Error(storage).
void write_record(const std::filesystem::path& path, const Job& job);

/// Throws Error(damaged_file) for one that is not whole or was edited: a part of it would look like another job.
Job read_record(const std::filesystem::path& path);

}  // namespace amalgam
