// SPDX-License-Identifier: Apache-2.0
// Are the files that a job reads there, and is each the kind of file that it should be?
#pragma once

#include "job/job_check.h"

namespace amalgam {

/// The teacher's folder, token files, requests, the checkpoint to start from. Looks at the file system.
void check_inputs(const Job& job, Findings& findings);

}  // namespace amalgam
