// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

/// Gated linear attention (Yang et al., arXiv 2312.06635), forward and backward: token by token on CPUs, in chunks of
/// 64 tokens on Hopper GPUs. Raw pointers only, no tensor library.
///
/// One head, column vectors q, k, gate (key_dim) and v, o (value_dim), state S (key_dim x value_dim):
///     g_t = log(sigmoid(gate_t)) / gate_logit_normalizer
///     S <- diag(exp(g_t)) S + k_t v_t^T;  o_t = scale * S^T q_t
namespace amalgam::kernels {

/// Sizes in elements.
struct GatedLinearAttentionShape {
    int64_t batch = 0;
    int64_t time = 0;
    int64_t heads = 0;
    int64_t key_dim = 0;
    int64_t value_dim = 0;
};

struct GatedLinearAttentionOptions {
    ElementType element_type = ElementType::float32;
    float scale = 0.0F;  ///< 0 stands for key_dim^-1/2
    float gate_logit_normalizer = 16.0F;
};

/// q, k, gate: [batch, time, heads, key_dim], v: [batch, time, heads, value_dim], of options.element_type.
struct GatedLinearAttentionInputs {
    ConstRows q, k, v, gate;
    const float* initial_state = nullptr;  ///< [batch, heads, key_dim, value_dim], or null for zeros
    /// Decoding: [batch], row i continues the state of slot[i]; a row of negative slot is left alone. Null: slot i.
    const int32_t* slot = nullptr;
};

struct GatedLinearAttentionOutputs {
    void* o = nullptr;             ///< [batch, time, heads, value_dim], contiguous, of options.element_type
    float* final_state = nullptr;  ///< [batch, heads, key_dim, value_dim], or null; may be initial_state's memory
};

/// Gradients of the loss by everything in GatedLinearAttentionInputs. `initial_state` may be null, the rest not.
struct GatedLinearAttentionGradients {
    Rows q, k, v, gate;
    float* initial_state = nullptr;
};

/// On CPUs, any dimensions. Throws std::invalid_argument on impossible sizes or missing pointers.
void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, int threads);

/// Decoding: shape.time must be 1; `state` [slots, heads, key_dim, value_dim] fp32 (slots: the batch, or what
/// inputs.slot names, no slot twice) is updated in place and inputs.initial_state is ignored. `o` is [batch, heads,
/// value_dim].
void gated_linear_attention_decode(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                   const GatedLinearAttentionInputs& inputs, float* state, void* o, int threads);

/// `output_gradient` is contiguous like o; `final_state_gradient` is fp32 like final_state, or null for zeros. States
/// are computed again, not saved.
void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const GatedLinearAttentionGradients& gradients,
                                     int threads);

/// On Hopper GPUs and device memory. Every call only enqueues work on `stream`. Results repeat bit for bit. Impossible
/// arguments are thrown as std::invalid_argument, errors of the launches as std::runtime_error.
namespace cuda {

/// True when the functions below take such a call: bf16, key_dim = value_dim = 64 or 128.
bool gated_linear_attention_supports(const GatedLinearAttentionShape& shape,
                                     const GatedLinearAttentionOptions& options);

/// Bytes of device memory (1 KiB aligned) for the states at the starts of all chunks, which the forward pass writes and
/// the backward pass reads; the backward pass needs as many again as scratch.
size_t gated_linear_attention_states_bytes(const GatedLinearAttentionShape& shape);

/// Rows of q, k, v and gate start at multiples of 16 bytes.
void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, void* states, Stream stream);

/// As on CPUs. Rows of q, k, v and gate may start anywhere.
void gated_linear_attention_decode(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                   const GatedLinearAttentionInputs& inputs, float* state, void* o, Stream stream);

/// As on CPUs. `states` is what the forward pass of the same inputs filled. Rows of the gradients start at multiples of
/// 16 bytes.
void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const void* states, void* scratch,
                                     const GatedLinearAttentionGradients& gradients, Stream stream);

}  // namespace cuda
}  // namespace amalgam::kernels
