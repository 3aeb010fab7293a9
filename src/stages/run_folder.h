// SPDX-License-Identifier: Apache-2.0
// Opening a run folder: a new one, or one without results, gets the resolved job; any other must belong to the same
// job.
#pragma once

#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

/// Makes OUTPUT/NAME, its subfolders, job.yaml and inputs.json, removes what an interrupted write left, and takes over
/// finished stages of `job.reuse`. Serial; whoever calls it has the folder's lock. Throws Error(bad_input) naming the
/// keys in which an older job.yaml differs, or the input files that have changed since results were made of them;
/// Error(damaged_file).
void open_run_folder(const Job& job);

/// Why open_run_folder() would refuse the job, though all its inputs are there: another job's results in the folder or
/// in `job.reuse`, inputs that have changed. Writes nothing, and needs no lock.
std::vector<std::string> run_folder_problems(const Job& job);

}  // namespace amalgam
