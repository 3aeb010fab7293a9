// SPDX-License-Identifier: Apache-2.0
// What a job's input files say of themselves: the teacher's sizes and the corpora's, for checks before anything starts.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "estimate/request_counts.h"
#include "job/job_check.h"

namespace amalgam {

struct JobInputs {
    std::optional<ModelConfig> teacher;
    std::optional<TokenCounts> counts;
    RequestCounts requests;             // none if the file cannot be read
    std::vector<std::string> problems;  // files that are there but cannot be read or do not fit together
    std::vector<std::string> notes;     // what somebody should know of them
};

JobInputs look_at_inputs(const Job& job);

}  // namespace amalgam
