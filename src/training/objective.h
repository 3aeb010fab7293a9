// SPDX-License-Identifier: Apache-2.0
// What a stage trains: alignment, distillation, next-token. The Trainer runs them all.
#pragma once

#include <string>
#include <vector>

#include "model/causal_lm.h"
#include "training/gradients.h"

namespace amalgam {

class Objective {
  public:
    virtual ~Objective() = default;

    /// The parameters that this objective trains.
    virtual std::vector<Parameter*> trained() = 0;

    /// Number of losses; the first is the one trained, others are details (align: one for each layer).
    virtual int64_t losses() const { return 1; }

    /// Adds weight * d loss / d parameter of one micro-batch (tokens int64 [sequences, time], on the model's device) to
    /// `gradients` and weight * loss to `losses`. `cursor` is the global index of its first sequence.
    virtual void accumulate(const at::Tensor& tokens, int64_t cursor, double weight, Gradients& gradients,
                            std::vector<double>& losses) = 0;
};

/// All parameters of a model.
std::vector<Parameter*> all_parameters(CausalLM& model);

/// Student's hidden states with the graph to its embeddings, which are a leaf of their own: their gradient reaches the
/// embedding table by index_add in fp32, without a dense gradient of the table.
struct StudentForward {
    at::Tensor tokens, embeddings, hidden;  // hidden [sequences * time, width]
    StudentForward(CausalLM& student, const at::Tensor& tokens);
    /// Backward from d_hidden [sequences * time, width] into `gradients`.
    void backward(CausalLM& student, const at::Tensor& d_hidden, Gradients& gradients) const;
};

}  // namespace amalgam
