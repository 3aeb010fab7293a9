// SPDX-License-Identifier: Apache-2.0
// Can sequences be divided among ranks as sharding.context asks for?
#pragma once

#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

/// What is wrong with it for a run of so many ranks.
std::vector<std::string> context_problems(const Job& job, int64_t ranks);

}  // namespace amalgam
