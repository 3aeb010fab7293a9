// SPDX-License-Identifier: Apache-2.0
// What the race for automatic learning rates may cost, and how its trials are cut: what is run and what estimates count
// on is written here once. The race itself: stages/learning_rate_walk.h (which rates), stages/learning_rate_race.h.
//
// A trial is the stage made short: its own batches of sequences, schedule and optimizer over fewer steps, each phase
// with its share of them, and then some batches on which the loss is only measured. Sequences are halved (not below 128
// tokens) until a trial has 64 steps: the best rate depends on the number of steps far more than on the length of
// sequences. A stage for which even so fewer than 20 are left has no race, but the rule of thumb.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "job/job.h"

namespace amalgam {

/// Which of a stage's learning rates are automatic.
struct AutomaticRates {
    bool mixers = false, rest = false;
    bool any() const { return mixers || rest; }
};

/// `stage`: align trains no rest, so that rate is never automatic there.
AutomaticRates automatic_rates(const std::string& stage, const OptimizerJob& optimizer);

struct TrialPlan {
    int64_t most_trials = 0;
    TrainingJob training;        // of one trial, the measured steps at its end included
    int64_t measured_steps = 0;  // batches that are measured, not trained on

    int64_t trained_steps() const;
    double most_tokens() const;  // of all trials
};

/// Nothing: no rate is automatic, or the stage is too short. `candidates`: that the stage trains, one after another,
/// with these rates (1 but for score); `corpus_tokens`: of the training file.
std::optional<TrialPlan> trial_plan(const std::string& stage, const TrainingJob& job, int64_t candidates,
                                    int64_t corpus_tokens);

}  // namespace amalgam
