// SPDX-License-Identifier: Apache-2.0
#include "job/training_plan.h"

#include <algorithm>
#include <cmath>

namespace amalgam {

bool has_score_stage(const Job& job) {
    const Scorer* scorer = selection_rule(job.select.rule).scorer;
    return scorer != nullptr && (!scorer->distils || job.score.tokens > 0);
}

bool candidates_are_trained(const Job& job) {
    return has_score_stage(job) && selection_rule(job.select.rule).scorer->distils;
}

bool gates_are_trained(const Job& job) {
    return has_score_stage(job) && selection_rule(job.select.rule).scorer->trains_gates;
}

int64_t training_steps(const TrainingJob& stage) {
    return stage.tokens / (stage.sequence_length * stage.batch_sequences);
}

int64_t warmup_steps(const OptimizerJob& optimizer, int64_t steps) {
    return std::max(optimizer.warmup_steps, int64_t(std::llround(optimizer.warmup_fraction * double(steps))));
}

int64_t micro_batch_sequences(const TrainingJob& stage, int64_t ranks, bool deterministic) {
    if (stage.micro_batch_sequences > 0) return stage.micro_batch_sequences;
    return deterministic ? 1 : (stage.batch_sequences + ranks - 1) / ranks;
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
    constexpr int64_t tokens = 8192;  // fills a GPU; little beside what training takes of memory
    return std::max<int64_t>(tokens / length, 1);
}

}  // namespace amalgam
