// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gated_delta_rule/gated_delta_rule.h"

/// Kimi Delta Attention (Kimi Team, arXiv 2510.26692) on CPUs: the gated delta rule with a decay for every key channel.
/// Training forward and backward in chunks of 64 tokens, and a one-token decode step.
///
/// One head, column vectors q, k, a, g, dt_bias (key_dim) and v, o (value_dim), state S (key_dim x value_dim):
///     q, k, v = silu(.) when `silu`; q, k = x * rsqrt(sum x^2 + 1e-6) when `l2_normalize`;  beta_t = sigmoid(b_t)
///     g_t = -exp(A_log) * softplus(a_t + dt_bias)                  lower_bound 0
///     g_t = lower_bound * sigmoid(exp(A_log) * (a_t + dt_bias))    lower_bound < 0
///     S <- diag(exp(g_t)) S;  r_t = beta_t (v_t - S^T k_t);  S <- S + k_t r_t^T;  o_t = scale * S^T q_t
///
/// Sizes and arguments are those of the gated delta rule, of which two are wider here, and their gradients with them:
/// a is [batch, time, heads, key_dim] and dt_bias [heads, key_dim]. Any decays are exact, also those that reach zero.
namespace amalgam::kernels {

using KimiDeltaAttentionShape = GatedDeltaRuleShape;
using KimiDeltaAttentionInputs = GatedDeltaRuleInputs;
using KimiDeltaAttentionOutputs = GatedDeltaRuleOutputs;
using KimiDeltaAttentionGradients = GatedDeltaRuleGradients;

struct KimiDeltaAttentionOptions : GatedDeltaRuleOptions {
    float lower_bound = 0.0F;  ///< of the log decays; 0: none, the gate by softplus
};

/// Bytes that the forward pass must be given to save what the backward pass reads (0 on the reference path).
size_t kimi_delta_attention_workspace_bytes(const KimiDeltaAttentionShape& shape,
                                            const KimiDeltaAttentionOptions& options);

/// As gated_delta_rule_forward. Throws std::invalid_argument also where lower_bound is positive.
void kimi_delta_attention_forward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                  const KimiDeltaAttentionInputs& inputs, const KimiDeltaAttentionOutputs& outputs,
                                  void* workspace);

/// As gated_delta_rule_backward.
void kimi_delta_attention_backward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                   const KimiDeltaAttentionInputs& inputs, const void* output_gradient,
                                   const float* final_state_gradient, const void* workspace,
                                   const KimiDeltaAttentionGradients& gradients);

/// As gated_delta_rule_decode.
void kimi_delta_attention_decode(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                 const KimiDeltaAttentionInputs& inputs, float* state, void* o);

}  // namespace amalgam::kernels
