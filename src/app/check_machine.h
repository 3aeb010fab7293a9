// SPDX-License-Identifier: Apache-2.0
// The machine that `amalgam check` speaks for: the one where it runs, or a kind of GPU by its data sheet.
#pragma once

#include <string>
#include <vector>

#include "app/check_command.h"
#include "estimate/job_estimate.h"

namespace amalgam {

struct CheckedMachine {
    Machine machine;
    std::vector<std::string> notes;  // what it assumes, and how to say otherwise
};

/// Measures products of this CPU (about a second) where it speaks for it. Throws Error(bad_input) for a device that is
/// not known.
CheckedMachine machine_for(const Job& job, const CheckOptions& options, const std::optional<ModelConfig>& teacher);

}  // namespace amalgam
