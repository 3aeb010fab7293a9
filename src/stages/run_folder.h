// SPDX-License-Identifier: Apache-2.0
// Opening a run folder: a new one gets the resolved job; one that is there must belong to the same job.
#pragma once

#include "job/job.h"

namespace amalgam {

/// Makes OUTPUT/NAME, its subfolders and job.yaml, removes what an interrupted write left, and takes over finished
/// stages of `job.reuse`. Serial. Throws Error(bad_input) naming the keys in which an older job.yaml differs.
void open_run_folder(const Job& job);

}  // namespace amalgam
