// SPDX-License-Identifier: Apache-2.0
// `amalgam run`: reads and checks the job, then goes through the stages, skipping those that are done.
#pragma once

#include <string>
#include <vector>

#include "comm/communicator.h"
#include "system/error.h"

namespace amalgam {

/// Collective. Returns success, or resumable if it was asked to stop.
ExitCode run_pipeline(const std::string& job_file, const std::vector<std::string>& overrides,
                      const Communicator& world);

}  // namespace amalgam
