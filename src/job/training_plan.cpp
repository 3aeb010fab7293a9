// SPDX-License-Identifier: Apache-2.0
#include "job/training_plan.h"

#include <algorithm>
#include <cmath>

#include "system/error.h"

namespace amalgam {
namespace {

constexpr int64_t pass_tokens = 8192;  // of a forward pass: fills a GPU; little beside what training takes of memory

/// Of a quotient.
int64_t rounded_up(int64_t dividend, int64_t divisor) {
    return (dividend + divisor - 1) / divisor;
}

}  // namespace

int64_t ranks_per_candidate(const Job& job) {
    return std::max(job.score.ranks_per_candidate, job.sharding.context);
}

bool has_score_stage(const Job& job) {
    const Scorer* scorer = selection_rule(job.select.rule).scorer;
    return scorer != nullptr && (!scorer->distils || job.score.tokens > 0);
}

bool candidates_are_trained(const Job& job) {
    return has_score_stage(job) && selection_rule(job.select.rule).scorer->distils;
}

bool trains_on_questions(const TrainingJob& stage) {
    return stage.tokens > 0 && stage.question_fraction > 0.0;
}

TrainingPlan::TrainingPlan(const TrainingJob& stage) {
    std::vector<TrainingPhase> phases = stage.phases;
    if (phases.empty())
        phases.push_back({stage.tokens, stage.sequence_length, stage.batch_sequences, stage.micro_batch_sequences});
    for (const TrainingPhase& phase : phases) block_length_ = std::max(block_length_, phase.sequence_length);
    PlannedPhase next;
    for (const TrainingPhase& phase : phases) {
        next.sequence_length = phase.sequence_length;
        next.batch_sequences = phase.batch_sequences;
        next.micro_batch_sequences = phase.micro_batch_sequences;
        next.parts = block_length_ / phase.sequence_length;
        next.steps = phase.tokens / next.step_tokens();
        next.blocks = rounded_up(next.sequences(), next.parts);
        phases_.push_back(next);
        next.first_step += next.steps;
        next.first_sequence += next.sequences();
        next.first_token += next.tokens();
        next.first_block += next.blocks;
    }
}

int64_t TrainingPlan::tokens(int64_t steps) const {
    const PlannedPhase& phase = phase_of_step(steps);
    return phase.first_token + (steps - phase.first_step) * phase.step_tokens();
}

const PlannedPhase& TrainingPlan::phase_of_step(int64_t step) const {
    const auto is_over = [&](const PlannedPhase& phase) { return phase.first_step + phase.steps <= step; };
    return *std::find_if_not(phases_.begin(), phases_.end() - 1, is_over);
}

const PlannedPhase& TrainingPlan::phase_of_sequence(int64_t sequence) const {
    const auto is_over = [&](const PlannedPhase& phase) {
        return phase.first_sequence + phase.sequences() <= sequence;
    };
    return *std::find_if_not(phases_.begin(), phases_.end() - 1, is_over);
}

double TrainingPlan::cost_from(int64_t step, const std::function<double(int64_t length)>& of_token) const {
    double cost = 0.0;
    for (const PlannedPhase& phase : phases_) {
        const int64_t left = std::clamp<int64_t>(phase.first_step + phase.steps - step, 0, phase.steps);
        cost += double(left * phase.step_tokens()) * of_token(phase.sequence_length);
    }
    return cost;
}

double TrainingPlan::mean_cost(const std::function<double(int64_t length)>& of_token) const {
    if (tokens() == 0) return of_token(phases_.front().sequence_length);
    return cost_from(0, of_token) / double(tokens());
}

std::string batches_in_words(const TrainingPlan& plan) {
    std::string words;
    for (const PlannedPhase& phase : plan.phases())
        words += text(words.empty() ? "" : ", then ", phase.batch_sequences, " x ", phase.sequence_length);
    return words;
}

bool gates_are_trained(const Job& job) {
    return has_score_stage(job) && selection_rule(job.select.rule).scorer->trains_gates;
}

bool gates_see_text(const ScoreJob& job) {
    return job.gates.objective == GateObjective::kl;
}

int64_t training_steps(const TrainingJob& stage) {
    return TrainingPlan(stage).steps();
}

int64_t warmup_steps(const OptimizerJob& optimizer, int64_t steps) {
    return std::max(optimizer.warmup_steps, int64_t(std::llround(optimizer.warmup_fraction * double(steps))));
}

int64_t micro_batch_sequences(const PlannedPhase& phase, int64_t ranks, bool deterministic) {
    if (phase.micro_batch_sequences > 0) return phase.micro_batch_sequences;
    return deterministic ? 1 : rounded_up(phase.batch_sequences, ranks);
}

int64_t micro_batches(const PlannedPhase& phase, int64_t ranks, bool deterministic) {
    return rounded_up(phase.batch_sequences, micro_batch_sequences(phase, ranks, deterministic));
}

int64_t gate_micro_batch(const ScoreJob& job) {
    if (job.micro_batch_sequences > 0) return job.micro_batch_sequences;
    return std::max<int64_t>(1, job.batch_sequences / 8);
}

int64_t automatic_loss_chunk(bool on_cpu, int64_t bytes_per_token) {
    constexpr int64_t cpu_tokens = 1024, device_bytes = int64_t{4} << 30;
    if (on_cpu) return cpu_tokens;
    return std::max<int64_t>(device_bytes / bytes_per_token / 256 * 256, 256);
}

int64_t recall_batch(int64_t length) {
    return std::max<int64_t>(pass_tokens / length, 1);
}

int64_t held_out_batch(int64_t length) {
    return std::clamp<int64_t>(pass_tokens / length, 1, 4);
}

}  // namespace amalgam
