// SPDX-License-Identifier: Apache-2.0
// How a forward pass asks for weights that are not always there: those of a sharded model exist whole only while they
// are used. The model floor only asks; who answers lives above it. A model whose weights stay has none (null), and pays
// nothing.
//
// The protocol, told here once. Weights are gathered from all ranks that share the model, so these ranks run the same
// passes over the same layers in the same order, each with tokens of its own. A rank that has no tokens left while
// others still have goes on with empty batches (of 0 sequences): nothing is computed and no gradient added, but every
// layer is acquired, released and completed (GradientSink) as in a pass with tokens. Who cuts work into batches sees to
// it that all ranks run equally many passes; whatever makes a pass longer or shorter is asked of all ranks first
// (everywhere). Weights may be read only while they are held: released, their storage is freed.
#pragma once

#include <cstdint>

namespace amalgam {

class WeightsOnDemand {
  public:
    /// Embedding, final norm and head.
    static constexpr int64_t outside_blocks = -1;
    static constexpr int64_t nothing = -2;

    virtual ~WeightsOnDemand() = default;

    /// The weights of `layer` are there until they were released as often as acquired. `next` is the layer that will be
    /// asked for after this one: it is fetched meanwhile. Collective: all ranks ask in the same order.
    virtual void acquire(int64_t layer, int64_t next) = 0;
    virtual void release(int64_t layer) = 0;

    /// `layer` will be asked for: it may be fetched from now on. Nothing happens if it is there or on its way.
    /// Collective.
    virtual void prefetch(int64_t layer) = 0;

    /// Is `value` true on every rank? Collective. For decisions on which further forward passes depend.
    virtual bool everywhere(bool value) = 0;
};

/// Acquired by the constructor, released by the destructor. Of nothing if `weights` is null. A model gives its weights
/// out only together with one of these (HeldOuterWeights, HeldBlock of model/causal_lm.h).
class WeightsHold {
  public:
    WeightsHold(WeightsOnDemand* weights, int64_t layer, int64_t next = WeightsOnDemand::nothing)
        : weights_(weights), layer_(layer) {
        if (weights_) weights_->acquire(layer_, next);
    }
    ~WeightsHold() {
        if (weights_) weights_->release(layer_);
    }
    WeightsHold(const WeightsHold&) = delete;
    WeightsHold& operator=(const WeightsHold&) = delete;

  private:
    WeightsOnDemand* weights_;
    int64_t layer_;
};

}  // namespace amalgam
