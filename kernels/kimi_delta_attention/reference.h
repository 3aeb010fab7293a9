// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "kernels/gated_delta_rule/reference.h"

/// Kimi Delta Attention token by token, as its formula reads (kimi_delta_attention.h): the oracle of the fast kernels,
/// and the path that takes every dimension. Real is float or double.
namespace amalgam::kernels {

/// One sequence and head with contiguous rows: q, k, a [time][key_dim], v [time][value_dim], b [time].
template <class Real>
struct KimiDeltaAttentionSequence {
    int64_t time = 0;
    int64_t key_dim = 0;
    int64_t value_dim = 0;
    bool silu = false;
    bool l2_normalize = true;
    Real scale = 1;
    Real lower_bound = 0;
    Real A_log = 0;
    std::vector<Real> dt_bias;  ///< [key_dim]
    std::vector<Real> q, k, v, a, b;
    std::vector<Real> initial_state;  ///< [key_dim][value_dim]
};

/// Gradients of the loss by every member of KimiDeltaAttentionSequence of the same name.
template <class Real>
struct KimiDeltaAttentionSequenceGradients {
    std::vector<Real> q, k, v, a, b, dt_bias, initial_state;
    Real A_log = 0;
};

template <class Real>
GatedDeltaRuleResult<Real> kimi_delta_attention_reference(const KimiDeltaAttentionSequence<Real>& sequence);

/// The recurrence's adjoint, from the last token to the first. `o_gradient` [time][value_dim],
/// `final_state_gradient` [key_dim][value_dim].
template <class Real>
KimiDeltaAttentionSequenceGradients<Real> kimi_delta_attention_reference_backward(
    const KimiDeltaAttentionSequence<Real>& sequence, const std::vector<Real>& o_gradient,
    const std::vector<Real>& final_state_gradient);

}  // namespace amalgam::kernels
