// SPDX-License-Identifier: Apache-2.0
// How a stage is cut into steps, micro-batches and chunks of logits: what is done and what estimates count on is
// written here once.
#pragma once

#include <cstdint>

#include "job/job.h"

namespace amalgam {

/// Does the job's selection rule choose by scores that can be made? Else the stage score is left out.
bool has_score_stage(const Job& job);

/// Does that stage train its candidates before it measures them?
bool candidates_are_trained(const Job& job);

/// Does it train gates before?
bool gates_are_trained(const Job& job);

/// Optimizer steps of a stage: whole batches that fit into its tokens (100M tokens of 96 x 512 make 2034).
int64_t training_steps(const TrainingJob& stage);

/// Steps in which the learning rates rise, of a stage with so many.
int64_t warmup_steps(const OptimizerJob& optimizer, int64_t steps);

/// Sequences of a micro-batch where `ranks` share the batch. Which ones form it must not depend on the number of ranks
/// if the bits must not: with `deterministic` it is one sequence unless the job says otherwise.
int64_t micro_batch_sequences(const TrainingJob& stage, int64_t ranks, bool deterministic);

/// Sequences or questions of a micro-batch while gates are trained: an eighth of a step's unless the job says
/// otherwise, whatever the number of ranks.
int64_t gate_micro_batch(const ScoreJob& job);

/// Tokens whose logits are in memory at once where the job names none: 1024 on CPUs; on GPUs as many as fill 4 GiB,
/// large enough for the products to run at full speed and for the gradient of the head to be read and written rarely.
/// `bytes_per_token`: of the logits of all models in a chunk.
int64_t automatic_loss_chunk(bool on_cpu, int64_t bytes_per_token);

/// Recall questions of so many tokens that a rank answers in one forward pass. Fixed, so that the arithmetic is the
/// same on any number of ranks.
int64_t recall_batch(int64_t length);

}  // namespace amalgam
