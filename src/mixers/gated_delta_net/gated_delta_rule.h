// SPDX-License-Identifier: Apache-2.0
// The gated delta rule on tensors, with autograd: from the fused projection of a gated delta net to its normed and
// gated output. On CPUs, and on GPUs in bf16 with heads of 64 or 128, it runs the kernels of kernels/gated_delta_rule
// and kernels/gated_rms_norm, elsewhere the chunk form of the same mathematics in LibTorch operations
// (gated_delta_rule_chunked).
#pragma once

#include "mixers/context_exchange.h"

namespace amalgam {

/// How the columns of the fused projection are laid out: q | k | v | gate (if any), each heads * head_dim, then a | b,
/// each `heads`.
struct GatedDeltaShape {
    int64_t heads, head_dim;
    bool gate;        // the output is multiplied by SiLU(gate)
    bool activation;  // SiLU on q, k, v
    double norm_eps;  // of the output norm
    int64_t width() const { return heads * head_dim; }
    int64_t columns() const { return (gate ? 4 : 3) * width() + 2 * heads; }
};

/// projected [batch, time, columns], a_log and dt_bias fp32 [heads], norm fp32 [head_dim] or undefined (no output norm)
/// -> [batch, time, heads * head_dim]. On GPUs `projected` may have more columns, which mean nothing. `state`, where
/// given, is fp32 [batch, heads, head_dim, head_dim]: read, and overwritten with the state after the last token
/// (generation; no gradients then).
at::Tensor gated_delta_mixing(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                              const at::Tensor& norm, const GatedDeltaShape& shape, at::Tensor* state);

/// The same of a piece of longer sequences, differentiable by the state that enters too: `before` fp32 (fp64 where
/// `projected` is) [batch, heads, head_dim, head_dim]. `documents`: those in it that are kept apart, or null.
MixedPiece gated_delta_mixing_of_piece(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                       const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& before,
                                       const DocumentsOfPiece* documents = nullptr);

/// The same of whole sequences that hold documents which are kept apart.
at::Tensor gated_delta_mixing_of_documents(const at::Tensor& projected, const at::Tensor& a_log,
                                           const at::Tensor& dt_bias, const at::Tensor& norm,
                                           const GatedDeltaShape& shape, const Documents& documents);

/// The same for one new token of each of several sequences, projected [batch, 1, columns]: they continue `states` fp32
/// [slots, heads, head_dim, head_dim] in slots [batch] (int32, on the device), in place. No gradients.
at::Tensor gated_delta_step(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                            const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& states,
                            const at::Tensor& slots);

/// The rule itself in LibTorch operations, differentiable by autograd, any device and type (math in fp32 or fp64).
/// q, k, v [batch, time, heads, dim], q and k already normalised and q scaled by dim^-1/2; g, beta [batch, time,
/// heads]; state [batch, heads, key dim, value dim] or undefined (zero). Returns o and, in `state`, the final state.
/// Chunk form B of Yang et al. (arXiv 2412.06464), C = 64.
at::Tensor gated_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                    const at::Tensor& beta, at::Tensor& state);

}  // namespace amalgam
