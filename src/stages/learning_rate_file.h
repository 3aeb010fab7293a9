// SPDX-License-Identifier: Apache-2.0
// learning_rates/STAGE.h5 of a run folder: the trials of a race for learning rates and what was chosen. Written anew
// after every trial, so that a run that is started again repeats none. Contents in outputs/README.md.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "stages/learning_rate_walk.h"
#include "system/provenance.h"

namespace amalgam {

struct LearningRateRecord {
    std::string stage;
    LearningRates rule;
    std::optional<LearningRates> chosen;  // nothing yet: the race goes on
    // Of every trial (sequence_length: of the longest phase); all zero where there is no race.
    int64_t sequence_length = 0, trained_steps = 0, measured_steps = 0;
    std::vector<RateTrial> trials;
};

void write_learning_rates(const std::filesystem::path& path, const LearningRateRecord& record,
                          const Provenance& provenance);

/// Throws Error(damaged_file).
LearningRateRecord read_learning_rates(const std::filesystem::path& path);

}  // namespace amalgam
