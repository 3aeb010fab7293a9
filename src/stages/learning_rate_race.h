// SPDX-License-Identifier: Apache-2.0
// The race that finds automatic learning rates before a stage proper: trials one after another (learning_rate_walk.h
// says which), each a student of its own that the stage's trainer trains on the stage's objective, made short
// (job/learning_rate_trials.h). Whatever the stage can train (sharded models too) a trial can.
//
// Held-out are training tokens, not the validation file, which stays untouched: a trial's order of sequences is one of
// its own, it trains on the first of them and is measured, after the schedule's end, on those that come next. They lie
// in the same epoch, so none is measured that was trained on.
//
// All trials see the same sequences in the same order. With `deterministic` their losses, and so the choice, do not
// depend on the number of ranks.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "job/learning_rate_trials.h"
#include "stages/run.h"

namespace amalgam {

/// A student and what it is trained on.
struct Trainee {
    Student student;
    std::unique_ptr<Objective> objective;
};

struct LearningRateRace {
    std::string stage;
    const TrainingJob& job;
    int64_t candidates = 1;  // that the stage trains with these rates
    /// The ranks that train together; those with the run's first rank run the trials, others wait for the outcome.
    const Communicator& group;
    bool runs_trials = true;
    ContextGroup* context = nullptr;    // of these ranks that share each sequence, if any do
    const CausalLM* teacher = nullptr;  // of the objective, or null
    std::function<Trainee()> make;      // collective over the group
};

/// The stage's optimizer with numbers in place of "auto". What was found is kept in learning_rates/STAGE.h5: a race
/// that is over is not repeated, one that was interrupted goes on with the next trial. Nothing: a stop was asked for.
/// Collective over all ranks of the run.
std::optional<OptimizerJob> find_learning_rates(Run& run, const LearningRateRace& race);

}  // namespace amalgam
