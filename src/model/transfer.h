// SPDX-License-Identifier: Apache-2.0
// Attention weight transfer: the weights of linear mixers made from the teacher's softmax attention. q_proj and o_proj
// are copied, k_proj and v_proj cloned for every query head, the rest initialised as flash-linear-attention does (A_log
// = log U(0, 16), dt_bias the inverse softplus of a log-uniform step in [1e-3, 0.1], gates as torch's Linear).
#pragma once

#include "model/weights.h"
#include "options/choices.h"

namespace amalgam {

/// Rows of a k or v projection expanded from `key_value_heads` to `query_heads` heads.
at::Tensor expand_key_value(const at::Tensor& weight, int64_t key_value_heads, int64_t query_heads,
                            KeyValueExpansion expansion);

/// Answers the names of linear mixers' parameters from a teacher's softmax attention, and everything else from the
/// teacher itself. Random numbers depend on seed and tensor name only.
class TransferSource : public TensorSource {
  public:
    TransferSource(const TensorSource& teacher, const ModelConfig& config, const LinearOptions& linear,
                   KeyValueExpansion expansion, uint64_t seed);
    std::optional<at::Tensor> find(const std::string& name) const override;
    std::string where() const override { return teacher_.where() + " (transferred)"; }

  private:
    at::Tensor initialise(const std::string& name, const std::string& part) const;

    const TensorSource& teacher_;
    ModelConfig config_;
    LinearOptions linear_;
    KeyValueExpansion expansion_;
    uint64_t seed_;
};

}  // namespace amalgam
