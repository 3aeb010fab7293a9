// SPDX-License-Identifier: Apache-2.0
// The keys of one phase in a list such as distill.phases: as job_schema.h for the keys of a job.
#pragma once

#include <string>
#include <vector>

#include "job/job.h"
#include "options/options.h"

namespace amalgam {

struct PhaseKey {
    std::string name;  // as that of the stage's key which gives the value where a phase has none
    std::string unit;
    int64_t TrainingPhase::*member;
    Range range;
};

/// The first one, tokens, must be given.
const std::vector<PhaseKey>& phase_keys();

/// The key that somebody who wrote `name` most likely meant.
const PhaseKey& nearest_phase_key(const std::string& name);

}  // namespace amalgam
