// SPDX-License-Identifier: Apache-2.0
// The gated delta rule with a decay for every key channel, on tensors, with autograd. On CPUs, and on GPUs in bf16 with
// heads of 64 or 128, it runs the kernels of kernels/kimi_delta_attention, elsewhere the chunk form of the same
// mathematics in LibTorch operations (kimi_delta_rule_chunked).
#pragma once

#include "mixers/context_exchange.h"

namespace amalgam {

struct KimiDeltaShape {
    int64_t heads, head_dim;
    bool activation;     // SiLU on q, k, v
    double lower_bound;  // of the log decays; 0: the gate by softplus
    int64_t width() const { return heads * head_dim; }
};

/// What changes from token to token, [batch, time, ...]: qkv, heads * head_dim each; the raw gate a like q; the logits
/// b of beta, `heads`.
struct KimiDeltaTokens {
    at::Tensor qkv, a, b;
};

/// -> o [batch, time, heads, head_dim]. a_log fp32 [heads], dt_bias fp32 [heads * head_dim]. `state`, where given, is
/// fp32 [batch, heads, head_dim, head_dim]: read, and overwritten with the state after the last token (generation; no
/// gradients then).
at::Tensor kimi_delta_rule(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                           const KimiDeltaShape& shape, at::Tensor* state);

/// The same of a piece of longer sequences, differentiable by the state that enters too: `before` fp32 (fp64 where the
/// tokens are) [batch, heads, head_dim, head_dim]. `documents`: those in it that are kept apart, or null.
MixedPiece kimi_delta_rule_of_piece(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                    const KimiDeltaShape& shape, const at::Tensor& before,
                                    const DocumentsOfPiece* documents = nullptr);

/// The same of whole sequences that hold documents which are kept apart.
at::Tensor kimi_delta_rule_of_documents(const KimiDeltaTokens& tokens, const at::Tensor& a_log,
                                        const at::Tensor& dt_bias, const KimiDeltaShape& shape,
                                        const Documents& documents);

/// The same for one new token of each of several sequences, [batch, 1, ...]: they continue `states` fp32 [slots, heads,
/// head_dim, head_dim] in slots [batch] (int32, on the device), in place. No gradients.
at::Tensor kimi_delta_step(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                           const KimiDeltaShape& shape, const at::Tensor& states, const at::Tensor& slots);

/// The rule itself in LibTorch operations, differentiable by autograd, any device and type (math in fp32 or fp64).
/// q, k, v [batch, time, heads, dim], q and k already normalised and q scaled by dim^-1/2; g, the log decays, like k;
/// beta [batch, time, heads]; state [batch, heads, key dim, value dim] or undefined (zero). Returns o and, in `state`
/// where it was defined, the final state.
at::Tensor kimi_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                   const at::Tensor& beta, at::Tensor& state);

}  // namespace amalgam
