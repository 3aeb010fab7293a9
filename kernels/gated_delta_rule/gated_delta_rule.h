// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/element_type.h"
#include "kernels/isa/isa.h"
#include "kernels/rows.h"

/// The gated delta rule (Gated DeltaNet, Yang et al., arXiv 2412.06464) on CPUs: training forward and backward in
/// chunks of 64 tokens, and a one-token decode step. Raw pointers only, no tensor library.
///
/// One head, column vectors q, k (key_dim) and v, o (value_dim), state S (key_dim x value_dim):
///     q, k, v = silu(.) when `silu`; q, k = x * rsqrt(sum x^2 + 1e-6) when `l2_normalize`
///     g_t = -exp(A_log) * softplus(a_t + dt_bias);  beta_t = sigmoid(b_t)
///     S <- exp(g_t) S;  r_t = beta_t (v_t - S^T k_t);  S <- S + k_t r_t^T;  o_t = scale * S^T q_t
namespace amalgam::kernels {

/// Sizes in elements. Any time >= 1. Key and value dimensions that are multiples of 8 up to 256 take the fast path,
/// all others the reference recurrence.
struct GatedDeltaRuleShape {
    int64_t batch = 0;
    int64_t time = 0;
    int64_t heads = 0;
    int64_t key_dim = 0;
    int64_t value_dim = 0;
    /// > 0: the batch is one row, which holds so many sequences one after the other, of any lengths, also 0
    /// (GatedDeltaRuleInputs::sequence_starts). States, [batch, heads, ...] below, are then [packed, heads, ...].
    int64_t packed = 0;
};

/// What is fused into the operation, and how it runs. Results do not depend on `threads`; the same `isa` must be
/// used in the forward and the backward pass, since the saved workspace has that variant's layout.
struct GatedDeltaRuleOptions {
    ElementType element_type = ElementType::float32;
    bool silu = false;
    bool l2_normalize = true;
    float scale = 0.0F;  ///< 0 stands for key_dim^-1/2
    int threads = 1;
    Isa isa = Isa::automatic;
};

/// Inputs of the operation; q, k: [batch, time, heads, key_dim], v: [batch, time, heads, value_dim],
/// a (raw gate), b (beta logits): [batch, time, heads], all of options.element_type.
struct GatedDeltaRuleInputs {
    ConstRows q, k, v, a, b;
    const float* A_log = nullptr;          ///< [heads]
    const float* dt_bias = nullptr;        ///< [heads]
    const float* initial_state = nullptr;  ///< [batch, heads, key_dim, value_dim], or null for zeros
    /// [packed + 1], from 0 to time and never falling ("cu_seqlens"); null if shape.packed is 0.
    const int64_t* sequence_starts = nullptr;
    /// Decoding: [batch], row i continues the state of slot[i]; a row of negative slot is left alone. Null: slot i.
    const int32_t* slot = nullptr;
};

struct GatedDeltaRuleOutputs {
    void* o = nullptr;             ///< [batch, time, heads, value_dim], contiguous, of options.element_type
    float* final_state = nullptr;  ///< [batch, heads, key_dim, value_dim], or null; may be initial_state's memory
};

/// Gradients of the loss by everything in GatedDeltaRuleInputs. A null pointer means not wanted only for
/// `initial_state`; all other outputs are required.
struct GatedDeltaRuleGradients {
    Rows q, k, v, a, b;
    float* A_log = nullptr;
    float* dt_bias = nullptr;
    float* initial_state = nullptr;
};

/// Bytes that the forward pass must be given to save what the backward pass reads (0 on the reference path).
size_t gated_delta_rule_workspace_bytes(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options);

/// Forward pass. `workspace` (64-byte aligned, of the size above) may be null when no backward pass will follow.
/// Throws std::invalid_argument on impossible sizes or missing pointers.
void gated_delta_rule_forward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                              const GatedDeltaRuleInputs& inputs, const GatedDeltaRuleOutputs& outputs,
                              void* workspace);

/// Backward pass. `output_gradient` is contiguous like o, of options.element_type; `final_state_gradient` is fp32 like
/// final_state, or null for zeros. `workspace` is the one that the forward pass of the same inputs filled.
/// The sums over batch and time in A_log and dt_bias have a fixed order: results repeat bit for bit.
void gated_delta_rule_backward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                               const GatedDeltaRuleInputs& inputs, const void* output_gradient,
                               const float* final_state_gradient, const void* workspace,
                               const GatedDeltaRuleGradients& gradients);

/// Decoding: shape.time must be 1; `state` [slots, heads, key_dim, value_dim] fp32 (slots: the batch, or what
/// inputs.slot names, no slot twice) is updated in place and inputs.initial_state is ignored. `o` is [batch, heads, value_dim].
void gated_delta_rule_decode(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                             const GatedDeltaRuleInputs& inputs, float* state, void* o);

}  // namespace amalgam::kernels
