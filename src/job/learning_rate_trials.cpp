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

std::optional<TrialPlan> trial_plan(const std::string& stage, const TrainingJob& job, int64_t candidates,
                                    int64_t corpus_tokens) {
    const AutomaticRates automatic = automatic_rates(stage, job.optimizer);
    if (!automatic.any() || job.tokens == 0) return std::nullopt;
    TrialPlan plan;
    plan.most_trials = automatic.mixers && automatic.rest ? trials_of_both : trials_of_one;
    const double counted = double(std::min(candidates, candidates_that_count));
    const double tokens = job.optimizer.race_fraction * double(job.tokens) * counted / double(plan.most_trials);
    plan.training = job;
    int64_t& length = plan.training.sequence_length;
    const auto steps = [&] { return int64_t(tokens / double(job.batch_sequences * length)); };
    while (steps() < wanted_steps && length / 2 >= shortest_sequence) length /= 2;
    const int64_t all = std::min({steps(), most_steps, training_steps(job) * 5 / 4});
    if (all < fewest_steps || all * job.batch_sequences > corpus_tokens / length) return std::nullopt;
    plan.measured_steps = all / 5;
    plan.training.tokens = all * job.batch_sequences * length;
    // The stage's own warm-up where there is room for it: it is there for the first steps of AdamW, whatever follows.
    const int64_t trained = all - plan.measured_steps;
    plan.training.optimizer.warmup_steps = std::min(warmup_steps(job.optimizer, training_steps(job)), trained / 4);
    plan.training.optimizer.warmup_fraction = 0.0;
    return plan;
}

}  // namespace amalgam
