// SPDX-License-Identifier: Apache-2.0
// Gated linear attention on tensors, with autograd: from the projections to the normed and gated output. On CPUs, and
// on GPUs in bf16 with heads of 64 or 128, it runs the kernels of kernels/gated_linear_attention and
// kernels/gated_rms_norm, elsewhere the recurrence in LibTorch operations.
#pragma once

#include "mixers/context_exchange.h"

namespace amalgam {

/// g = log(sigmoid(logit)) / gate_logit_normalizer: of logits far below 0, the logit / gate_logit_normalizer.
inline constexpr double gate_logit_normalizer = 16.0;

/// How the columns of the fused projection are laid out: q | k | v | gate (if any), each heads * head_dim.
struct LinearAttentionShape {
    int64_t heads, head_dim;
    bool gate;        // the output is multiplied by SiLU(gate)
    double norm_eps;  // of the output norm
    int64_t width() const { return heads * head_dim; }
};

/// projected [batch, time, columns], decay [batch, time, width] (logits), norm fp32
/// [head_dim] or undefined (no output norm) -> [batch, time, width]. `state`, where given, is fp32 [batch, heads,
/// head_dim, head_dim]: read, and overwritten with the state after the last token (generation; no gradients then).
at::Tensor gated_linear_attention_mixing(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                                         const LinearAttentionShape& shape, at::Tensor* state);

/// The same of a piece of longer sequences, differentiable by the state that enters too: `before` fp32 (fp64 where
/// `projected` is) [batch, heads, head_dim, head_dim].
MixedPiece gated_linear_attention_mixing_of_piece(const at::Tensor& projected, const at::Tensor& decay,
                                                  const at::Tensor& norm, const LinearAttentionShape& shape,
                                                  const at::Tensor& before);

/// The same for one new token of each of several sequences, projected and decay [batch, 1, ...]: they continue `states`
/// fp32 [slots, heads, head_dim, head_dim] in slots [batch] (int32, on the device), in place. No gradients.
at::Tensor gated_linear_attention_step(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                                       const LinearAttentionShape& shape, const at::Tensor& states,
                                       const at::Tensor& slots);

/// The rule itself in LibTorch operations, differentiable by autograd, any device and type (math in fp32 or fp64). q,
/// k, v [batch, time, heads, dim], q scaled by dim^-1/2; g, the log decays, like k; state [batch, heads, key dim, value
/// dim] or undefined (zero). Returns o and, in `state` where it was defined, the final state. Chunk form of Yang et al.
/// (arXiv 2312.06635), C = 64.
at::Tensor gated_linear_attention_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const at::Tensor& g, at::Tensor& state);

}  // namespace amalgam
