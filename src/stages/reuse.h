// SPDX-License-Identifier: Apache-2.0
// Taking over what another run has finished (`reuse` of a job).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "job/job.h"
#include "stages/run_inputs.h"

namespace amalgam {

/// Another run that a job reuses.
struct Reused {
    Job job;  // with this job's paths to the same inputs
    std::optional<std::vector<InputFile>> made_from;

    /// How the inputs of one key differ from those of this job (run_inputs.h); empty where that is not known.
    std::string changed(const std::vector<InputFile>& inputs, const std::string& key) const;
};

/// Why nothing can be taken over from `job.reuse`; empty if something can, or nothing is asked for.
std::string reuse_problem(const Job& job);

/// `inputs`: of this job. Changes nothing. Throws Error(bad_input) if the other run's alignment would not be this
/// job's, Error(damaged_file).
Reused expect_reusable(const Job& job, const std::vector<InputFile>& inputs);

/// Of the finished stages of `job.reuse`, those that this job would do alike; what the run folder has already stays.
/// Throws what expect_reusable() throws.
void take_over(const Job& job, const std::vector<InputFile>& inputs);

}  // namespace amalgam
