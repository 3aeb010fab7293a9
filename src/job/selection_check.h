// SPDX-License-Identifier: Apache-2.0
// Can the job's rule choose layers: has it what it needs, and are its options sensible?
#pragma once

#include "job/job_check.h"

namespace amalgam {

/// `layers`: of the teacher, if it is known.
void check_selection(const Job& job, int64_t ranks, std::optional<int64_t> layers, Findings& findings);

}  // namespace amalgam
