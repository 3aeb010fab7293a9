// SPDX-License-Identifier: Apache-2.0
// What a stage trains: alignment, distillation, next-token. The Trainer runs them all.
#pragma once

#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "optimizer/gradient_sink.h"

namespace amalgam {

class Objective {
  public:
    virtual ~Objective() = default;

    /// The parameters that this objective trains.
    virtual std::vector<Parameter*> trained() = 0;

    /// Number of losses; the first is the one trained, others are details (align: one for each layer).
    virtual int64_t losses() const { return 1; }

    /// Of so many tokens in so many texts (sequences, or documents that are kept apart), those that have a loss. The
    /// loss of a batch is their mean.
    virtual int64_t counted(int64_t tokens, int64_t) const { return tokens; }

    /// Adds weight * d loss / d parameter of one micro-batch (on the model's device) to `gradients` and weight * loss
    /// to `losses`. `cursor` is the global index of its first sequence. The micro-batch may be empty
    /// (weights_on_demand.h).
    virtual void accumulate(const TokenBatch& batch, int64_t cursor, double weight, GradientSink& gradients,
                            std::vector<double>& losses) = 0;
};

/// All parameters of a model.
std::vector<Parameter*> all_parameters(CausalLM& model);

}  // namespace amalgam
