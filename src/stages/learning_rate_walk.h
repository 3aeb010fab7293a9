// SPDX-License-Identifier: Apache-2.0
// Which learning rates the race tries, and which it chooses: a walk on a grid around the rule of thumb, whose steps are
// factors of three. Both rates first move together, then the rest's alone; down before up, and further in a direction
// that helps. A pure function of the trials so far, so that a race that was interrupted goes on where it was.
//
// A rate leaves the one before only on evidence: on the same held-out batches its loss must be lower by more than one
// standard error of the differences. So a tie stays with the rule. A trial whose loss is not finite loses.
//
// Short trials mislead where the student starts well: any rate first moves it away from where alignment left it, and
// only a longer stage makes up for that. With 59 steps a trial the lowest rates won in distillation of SmolLM2-135M,
// and the student was worse by 0.008 nat/token than with the rule's (analysis/results/recipe). So there is no race
// unless a job gives it tokens (race_fraction), and it is worth them only if trials take a good part of the stage's
// steps.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "job/learning_rate_rule.h"
#include "job/learning_rate_trials.h"

namespace amalgam {

/// Of mixers and rest: how many factors of three above the rule.
using RatePosition = std::array<int64_t, 2>;

struct RateTrial {
    RatePosition position = {0, 0};
    std::vector<double> losses;  // of each held-out batch; one that is not finite: the trial diverged
    double seconds = 0.0;
};

/// The rule's rates, those that are automatic moved to `position`.
LearningRates rates_at(const LearningRates& rule, const RatePosition& position);

/// What to try next, after `done`; nothing: the walk is over.
std::optional<RatePosition> next_trial(const AutomaticRates& automatic, const std::vector<RateTrial>& done);

/// The best of a walk that is over.
RatePosition best_trial(const AutomaticRates& automatic, const std::vector<RateTrial>& done);

/// Did it end with finite losses?
bool is_finite(const RateTrial& trial);

}  // namespace amalgam
