// SPDX-License-Identifier: Apache-2.0
#include "job/learning_rate_trials.h"

#include <algorithm>

#include "job/training_plan.h"

namespace amalgam {
namespace {

constexpr int64_t shortest_sequence = 128, wanted_steps = 64, fewest_steps = 20, most_steps = 256;
// Walks of stages/learning_rate_walk.h: along one axis, and along both.
constexpr int64_t trials_of_one = 4, trials_of_both = 6;
// Of score: a tenth of a candidate's tokens, so that the race, which one group of ranks runs, takes no noticeable time
// where there are as many groups as candidates.
constexpr int64_t candidates_that_count = 3;

}  // namespace

AutomaticRates automatic_rates(const std::string& stage, const OptimizerJob& optimizer) {
    return {!optimizer.learning_rate.has_value(), stage != "align" && !optimizer.learning_rate_rest.has_value()};
}

int64_t TrialPlan::trained_steps() const {
    return training_steps(training) - measured_steps;
}

double TrialPlan::most_tokens() const {
    return double(most_trials) * double(training.tokens);
}

namespace {

int64_t shortened(int64_t length, int64_t halvings) {
    for (; halvings > 0 && length / 2 >= shortest_sequence; --halvings) length /= 2;
    return length;
}

/// The stage in `steps` steps of shortened sequences. Each phase has its share of the steps; those that get none are
/// left out.
TrainingJob cut(const TrainingJob& stage, int64_t halvings, int64_t steps) {
    TrainingJob job = stage;
    const TrainingPlan plan(stage);
    job.sequence_length = shortened(job.sequence_length, halvings);
    job.phases.clear();
    job.tokens = 0;
    int64_t before = 0;
    for (const PlannedPhase& phase : plan.phases()) {
        const int64_t until = steps * (phase.first_step + phase.steps) / plan.steps();
        const int64_t length = shortened(phase.sequence_length, halvings);
        const int64_t tokens = (until - before) * phase.batch_sequences * length;
        if (tokens > 0 && !stage.phases.empty())
            job.phases.push_back({tokens, length, phase.batch_sequences, phase.micro_batch_sequences});
        job.tokens += tokens;
        before = until;
    }
    return job;
}

}  // namespace

std::optional<TrialPlan> trial_plan(const std::string& stage, const TrainingJob& job, int64_t candidates,
                                    int64_t corpus_tokens) {
    const AutomaticRates automatic = automatic_rates(stage, job.optimizer);
    const int64_t steps_of_stage = training_steps(job);
    if (!automatic.any() || steps_of_stage == 0) return std::nullopt;
    TrialPlan plan;
    plan.most_trials = automatic.mixers && automatic.rest ? trials_of_both : trials_of_one;
    const double counted = double(std::min(candidates, candidates_that_count));
    const double tokens = job.optimizer.race_fraction * double(job.tokens) * counted / double(plan.most_trials);
    const auto of_all_steps = [&](int64_t halvings) { return cut(job, halvings, steps_of_stage).tokens; };
    const auto steps = [&](int64_t halvings) {
        return int64_t(tokens / (double(of_all_steps(halvings)) / double(steps_of_stage)));
    };
    int64_t halvings = 0;
    while (steps(halvings) < wanted_steps && of_all_steps(halvings + 1) < of_all_steps(halvings)) ++halvings;
    int64_t all = std::min({steps(halvings), most_steps, steps_of_stage * 5 / 4});
    while (double(cut(job, halvings, all).tokens) > tokens) --all;  // steps of phases do not cost the same
    plan.training = cut(job, halvings, all);
    const TrainingPlan batches(plan.training);
    if (all < fewest_steps || batches.blocks() > corpus_tokens / batches.block_length()) return std::nullopt;
    plan.measured_steps = all / 5;
    // The stage's own warm-up where there is room for it: it is there for the first steps of AdamW, whatever follows.
    const int64_t trained = all - plan.measured_steps;
    plan.training.optimizer.warmup_steps = std::min(warmup_steps(job.optimizer, steps_of_stage), trained / 4);
    plan.training.optimizer.warmup_fraction = 0.0;
    return plan;
}

}  // namespace amalgam
