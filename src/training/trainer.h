// SPDX-License-Identifier: Apache-2.0
// The training loop of every stage: batches, gradients summed over the ranks of a group, clipping, AdamW, metrics,
// checkpoints, stop requests. A loss or gradient that is not finite never reaches a weight.
#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "checkpoints/stage_checkpoints.h"
#include "job/job.h"
#include "objectives/objective.h"
#include "sharding/sequence_ranks.h"
#include "sharding/sharded_model.h"
#include "training/batches.h"
#include "training/metrics.h"
#include "training/stop_request.h"

namespace amalgam {

struct TrainerSetup {
    std::string stage;
    std::optional<int64_t> candidate;
    int64_t seed = 0;
    int64_t log_every_steps = 10;
    bool deterministic = false;         // the same bits on any number of ranks, however they share the model
    double spike_guard = 0.0;           // z-score of a loss that is too high to learn from; 0: off
    int64_t max_skipped_updates = 100;  // more end the training
    bool announce = true;               // progress lines and rows in `metrics` (root of the group only)
    MetricsFile* metrics = nullptr;
    StopRequest* stop = nullptr;
    /// The ranks that share each sequence with this one, if any do: consecutive ones of the group, with a piece each.
    /// The objective has the same.
    ContextGroup* context = nullptr;
    /// Of the model, if it is sharded.
    ShardedModel* shards = nullptr;
    /// Student or teacher is sharded: ranks with fewer micro-batches go on with empty ones (weights_on_demand.h).
    bool in_step = false;
    /// The last of the job's steps update nothing: their losses are of batches that were not trained on. The schedule
    /// ends before them.
    int64_t measured_steps = 0;
    /// Of a token of a sequence of so many tokens. None: not known, and tokens of all sequences count alike.
    std::function<double(int64_t length)> flops_per_token;
    double peak_flops = 0.0;  // of the whole group, raised where steps run faster; 0: not known

    /// Checkpoints of the stage, or of the candidate; none: nothing is saved and a stop loses the steps done.
    std::optional<StageCheckpoints> checkpoints;
    bool only_on_the_way = false;  // the end is not saved: a candidate's result is its measurements
    CheckpointJob checkpoint;
    Provenance provenance;

    /// Called before the first and after every step with the number of steps done.
    std::function<void(int64_t steps_done)> on_step;
};

struct TrainerOutcome {
    bool finished = false;  // false: stopped on request, the state is saved
    int64_t steps = 0, tokens = 0, skipped_updates = 0;
    double seconds = 0.0, seconds_waited = 0.0;  // of them, for weights and gradients of other ranks
    std::vector<double> step_losses;             // main loss of every step of this process
    std::vector<StepMetrics> logged;             // of a candidate: its rows of metrics.csv, on the root of the group
    int64_t resumed_at = 0;                      // step of the checkpoint that it went on from; 0: none
};

/// Trains `model` by `objective` as `job` says, over the ranks of `group`. All arguments must outlive it.
class Trainer {
  public:
    /// Resumes from the setup's latest checkpoint. Collective, as all of the following.
    Trainer(CausalLM& model, Objective& objective, const TrainingJob& job, const Batches& batches,
            const Communicator& group, const TrainerSetup& setup);
    ~Trainer();

    /// All steps are done, or a stop was asked for.
    bool is_done() const;
    /// One optimizer step. Throws Error(diverged) after 10 steps in a row without finite gradients, or too many skipped
    /// updates.
    void step();
    /// What the next step costs, in steps like the last one: another phase may come.
    double next_step_cost() const;
    /// Saves the state, which needs checkpoints, and stops.
    void save_to_go_on();
    /// Saves the result, unless training was stopped: then the state is saved already. Throws Error(diverged) if the
    /// trained model computes a loss that is not finite; nothing is saved then.
    TrainerOutcome finish();
    /// So far.
    const TrainerOutcome& outcome() const;

  private:
    class Loop;
    std::unique_ptr<Loop> loop_;
};

/// The same from the first step to the last.
TrainerOutcome train(CausalLM& model, Objective& objective, const TrainingJob& job, const Batches& batches,
                     const Communicator& group, const TrainerSetup& setup);

}  // namespace amalgam
