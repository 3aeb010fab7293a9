// SPDX-License-Identifier: Apache-2.0
// Can the student that a job makes be written in the formats that it names?
#pragma once

#include "job/job_check.h"

namespace amalgam {

/// Of a teacher that is not known nothing is held against the formats.
void check_formats(const Job& job, const std::optional<ModelConfig>& teacher, Findings& findings);

}  // namespace amalgam
