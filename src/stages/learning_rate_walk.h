// SPDX-License-Identifier: Apache-2.0
// Which learning rates the race tries, and which it chooses: a walk on a grid around the rule of thumb, whose steps are
// factors of three. Both rates first move together, then the rest's alone; down before up, and further in a direction
// that helps. A pure function of the trials so far, so that a race that was interrupted goes on where it was.
//
// A rate leaves the one before only on evidence: on the same held-out batches its loss must be lower by more than one
// standard error of the differences. So a tie stays with the rule. A trial whose loss is not finite loses.
//
// Short trials favour high rates: the best rate falls with the number of steps T as T^-0.32 (Bjorck et al., arXiv
// 2409.19913: from 25 to 400 billion tokens). A trial that stands for a rate is therefore trained with that rate times
// horizon_factor(), and what is compared are rates that are as right for T steps as those that they stand for are for
// the stage's.
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

/// On the rates of a trial of so many steps, for a stage of so many.
double horizon_factor(int64_t trial_steps, int64_t stage_steps);

}  // namespace amalgam
