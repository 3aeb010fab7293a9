// SPDX-License-Identifier: Apache-2.0
// How a stage is cut into phases, steps, micro-batches and chunks of logits: what is done and what estimates count on
// is written here once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "job/job.h"

namespace amalgam {

/// Ranks that measure one candidate of the stage score together: at least those that share a sequence.
int64_t ranks_per_candidate(const Job& job);

/// Does the job's selection rule choose by scores that can be made? Else the stage score is left out.
bool has_score_stage(const Job& job);

/// Are there recall questions among the stage's training sequences?
bool trains_on_questions(const TrainingJob& stage);

/// Does that stage train its candidates before it measures them?
bool candidates_are_trained(const Job& job);

/// Does it train gates before?
bool gates_are_trained(const Job& job);

/// Do text sequences count while gates are trained? Else only questions are looked at.
bool gates_see_text(const ScoreJob& job);

/// Steps of a stage that are alike, and what was done before the first of them. Sequences and tokens are counted over
/// all ranks.
struct PlannedPhase {
    int64_t sequence_length = 0, batch_sequences = 0;
    int64_t micro_batch_sequences = 0;  // as the job says: 0 is all of a rank's share
    int64_t parts = 1;                  // sequences in a block (TrainingPlan::block_length)
    int64_t steps = 0, blocks = 0;
    int64_t first_step = 0, first_sequence = 0, first_token = 0, first_block = 0;

    int64_t step_tokens() const { return batch_sequences * sequence_length; }
    int64_t sequences() const { return steps * batch_sequences; }
    int64_t tokens() const { return steps * step_tokens(); }
};

/// What every step of a stage is. A phase has the whole batches that fit into its tokens (100M tokens of 96 x 512 make
/// 2034 steps); a stage without phases is one.
class TrainingPlan {
  public:
    explicit TrainingPlan(const TrainingJob& stage);

    const std::vector<PlannedPhase>& phases() const { return phases_; }
    int64_t steps() const { return phases_.back().first_step + phases_.back().steps; }
    int64_t tokens() const { return phases_.back().first_token + phases_.back().tokens(); }
    int64_t tokens(int64_t steps) const;  // of the first `steps` steps
    /// Of a step, from 0; of what comes after the last one, the last phase.
    const PlannedPhase& phase_of_step(int64_t step) const;
    /// The same for a sequence of the stage's order: the cursor of checkpoints counts them.
    const PlannedPhase& phase_of_sequence(int64_t sequence) const;

    /// Of the longest sequence, tokens. The token file is cut into blocks of this length, and phases of shorter
    /// sequences cut these into parts (training/batches.h): so no two phases read the same text while there is another.
    int64_t block_length() const { return block_length_; }
    int64_t blocks() const { return phases_.back().first_block + phases_.back().blocks; }  // that all steps read

    /// Of the steps from `step` on, where a token of a sequence of so many tokens costs `of_token`.
    double cost_from(int64_t step, const std::function<double(int64_t length)>& of_token) const;
    /// A token's share of all steps; of a stage without steps, that of a token of its first phase.
    double mean_cost(const std::function<double(int64_t length)>& of_token) const;

  private:
    std::vector<PlannedPhase> phases_;  // at least one
    int64_t block_length_ = 0;
};

/// "32 x 512", or "32 x 512, then 4 x 4096": sequences of a step and their tokens, phase by phase.
std::string batches_in_words(const TrainingPlan& plan);

/// Optimizer steps of a stage.
int64_t training_steps(const TrainingJob& stage);

/// Steps in which the learning rates rise, of a stage with so many.
int64_t warmup_steps(const OptimizerJob& optimizer, int64_t steps);

/// Sequences of a micro-batch where `ranks`, or groups of ranks that share sequences, share the batch. Which ones form
/// it must not depend on the number of ranks if the bits must not: with `deterministic` it is one sequence unless the
/// job says otherwise.
int64_t micro_batch_sequences(const PlannedPhase& phase, int64_t ranks, bool deterministic);

/// Micro-batches of one step over all ranks.
int64_t micro_batches(const PlannedPhase& phase, int64_t ranks, bool deterministic);

/// Sequences or questions of a micro-batch while gates are trained: an eighth of a step's unless the job says
/// otherwise, whatever the number of ranks.
int64_t gate_micro_batch(const ScoreJob& job);

/// Tokens whose logits are in memory at once where the job names none: 1024 on CPUs; on GPUs as many as fill 4 GiB,
/// large enough for the products to run at full speed and for the gradient of the head to be read and written rarely.
/// `bytes_per_token`: of the logits of all models in a chunk.
int64_t automatic_loss_chunk(bool on_cpu, int64_t bytes_per_token);

/// Recall questions, or held-out sequences, of so many tokens that a rank, or a group of ranks that share sequences,
/// looks at in one forward pass. Fixed, so that the arithmetic is the same on any number of them.
int64_t recall_batch(int64_t length);
int64_t held_out_batch(int64_t length);

}  // namespace amalgam
