// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

/// Gated linear attention token by token, as its formula reads (gated_linear_attention.h), in double precision: the
/// oracle of the kernels.
namespace amalgam::kernels {

/// One sequence and head with contiguous rows: q, k, gate [time][key_dim], v [time][value_dim].
struct GatedLinearAttentionSequence {
    int64_t time = 0;
    int64_t key_dim = 0;
    int64_t value_dim = 0;
    double scale = 1;
    double gate_logit_normalizer = 16;
    std::vector<double> q, k, v, gate;
    std::vector<double> initial_state;  ///< [key_dim][value_dim]
};

struct GatedLinearAttentionResult {
    std::vector<double> o;            ///< [time][value_dim]
    std::vector<double> final_state;  ///< [key_dim][value_dim]
};

/// Gradients of the loss by every member of GatedLinearAttentionSequence of the same name.
struct GatedLinearAttentionSequenceGradients {
    std::vector<double> q, k, v, gate, initial_state;
};

GatedLinearAttentionResult gated_linear_attention_reference(const GatedLinearAttentionSequence& sequence);

/// The recurrence's adjoint, from the last token to the first. `o_gradient` [time][value_dim],
/// `final_state_gradient` [key_dim][value_dim].
GatedLinearAttentionSequenceGradients gated_linear_attention_reference_backward(
    const GatedLinearAttentionSequence& sequence, const std::vector<double>& o_gradient,
    const std::vector<double>& final_state_gradient);

}  // namespace amalgam::kernels
