// SPDX-License-Identifier: Apache-2.0
// What a Trainer trains: gradients of a step, one AdamW update, and the state that checkpoints keep. Every rank has all
// of it, or a shard; the training loop is the same.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "checkpoints/checkpoint.h"
#include "checkpoints/tensor_piece.h"
#include "job/job.h"
#include "model/causal_lm.h"
#include "optimizer/gradient_sink.h"
#include "sharding/sharded_model.h"

namespace amalgam {

class TrainedWeights {
  public:
    virtual ~TrainedWeights() = default;

    // One step, in this order. Collective.
    virtual void begin_step() = 0;
    virtual GradientSink& gradients() = 0;
    virtual void end_micro_batch() = 0;
    virtual void reduce() = 0;             // sum over the ranks
    virtual double norm(int threads) = 0;  // L2, of all gradients
    virtual std::string not_finite() = 0;  // name of a parameter, or empty
    virtual bool own_finite() const = 0;   // was what this rank added to the sum finite?
    virtual void update(double rate_factor, double gradient_factor, int threads) = 0;  // or nothing, if not finite

    /// Updates done so far.
    virtual int64_t updates() const = 0;
    /// This rank's pieces of the weights, and of the moments if asked for: views.
    virtual std::vector<TensorPiece> pieces(bool moments) = 0;
    /// Goes on from a checkpoint with moments.
    virtual void load(const Checkpoint& checkpoint) = 0;

    /// Seconds in which this rank stood still for weights and gradients of others.
    virtual double seconds_waited() const = 0;
};

struct TrainedWeightsSetup {
    OptimizerJob optimizer;
    bool order_independent = false;
    int64_t micro_batches = 1;  // of one step over all ranks
};

/// `parameters` of `model`; `shards`: of this model, or null if every rank has it whole. Collective over `group`.
std::unique_ptr<TrainedWeights> make_trained_weights(CausalLM& model, ShardedModel* shards,
                                                     const std::vector<Parameter*>& parameters,
                                                     const Communicator& group, const TrainedWeightsSetup& setup);

}  // namespace amalgam
