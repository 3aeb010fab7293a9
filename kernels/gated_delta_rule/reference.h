// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "kernels/gated_delta_rule/gated_delta_rule.h"

/// The gated delta rule token by token, as its formula reads: the oracle of the fast kernels, and the path that takes
/// every dimension. Real is float or double.
namespace amalgam::kernels {

/// One sequence and head with contiguous rows: q, k [time][key_dim], v [time][value_dim], a, b [time].
template <class Real>
struct GatedDeltaRuleSequence {
    int64_t time = 0;
    int64_t key_dim = 0;
    int64_t value_dim = 0;
    bool silu = false;
    bool l2_normalize = true;
    Real scale = 1;
    Real A_log = 0;
    Real dt_bias = 0;
    std::vector<Real> q, k, v, a, b;
    std::vector<Real> initial_state;  ///< [key_dim][value_dim]
};

template <class Real>
struct GatedDeltaRuleResult {
    std::vector<Real> o;            ///< [time][value_dim]
    std::vector<Real> final_state;  ///< [key_dim][value_dim]
};

/// Gradients of the loss by every member of GatedDeltaRuleSequence of the same name.
template <class Real>
struct GatedDeltaRuleSequenceGradients {
    std::vector<Real> q, k, v, a, b, initial_state;
    Real A_log = 0;
    Real dt_bias = 0;
};

template <class Real>
GatedDeltaRuleResult<Real> gated_delta_rule_reference(const GatedDeltaRuleSequence<Real>& sequence);

/// The recurrence's adjoint, from the last token to the first. `o_gradient` [time][value_dim],
/// `final_state_gradient` [key_dim][value_dim].
template <class Real>
GatedDeltaRuleSequenceGradients<Real> gated_delta_rule_reference_backward(
    const GatedDeltaRuleSequence<Real>& sequence, const std::vector<Real>& o_gradient,
    const std::vector<Real>& final_state_gradient);

}  // namespace amalgam::kernels
