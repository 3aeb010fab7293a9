// SPDX-License-Identifier: Apache-2.0
// What `amalgam check` prints: findings of job_check.h and the table of job_estimate.h, for people.
#pragma once

#include <optional>
#include <string>

#include "estimate/job_estimate.h"
#include "job/job_check.h"

namespace amalgam {

/// `estimate` is absent where the teacher's sizes are not known. Bytes are decimal: 1 GB = 10^9.
std::string print_check(const Job& job, const Findings& findings, const std::optional<Estimate>& estimate,
                        const Machine& machine);

std::string readable_bytes(double bytes);      // "3.09 GB"
std::string readable_count(double count);      // "1.78 G"
std::string readable_seconds(double seconds);  // "42 s", "5 min 10 s", "3 h 20 min", "12 d 4 h"

}  // namespace amalgam
