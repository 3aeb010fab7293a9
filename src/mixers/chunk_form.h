// SPDX-License-Identifier: Apache-2.0
// What the chunk forms of the linear mixers share, in LibTorch operations with autograd, any device and type: tokens in
// chunks of 64, products under a decay for every channel, the inverse of I + A, and the chain of states.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

inline constexpr int64_t chunk_form_tokens = 64;

/// [batch, time, heads, ...] -> [chunks, batch * heads, 64, ...], filled up with zeros: such tokens leave the state
/// alone.
at::Tensor in_chunks(const at::Tensor& t);
/// The way back: [chunks, batch * heads, 64, dim] -> [batch, time, heads, dim].
at::Tensor out_of_chunks(const at::Tensor& t, int64_t batch, int64_t time);

/// True above the diagonal of [64, 64].
at::Tensor above_diagonal(at::Device device);

/// (I + A)^-1 of strictly lower triangular matrices [..., 64, 64].
at::Tensor unit_lower_inverse(const at::Tensor& A);

/// Log decays [..., 64, dim] cumulated over the tokens of chunks.
at::Tensor running_sum(at::Tensor t);

/// P_ij = sum_c X_ic K_jc exp(G_ic - G_jc) for i >= j, else 0: [..., 64, 64] from X, K, G [..., 64, dim], G falling.
at::Tensor decayed_products(const at::Tensor& X, const at::Tensor& K, const at::Tensor& G);

/// The chain over chunks: values[c] = U[c] - W[c] S[c], S[c + 1] = decay[c] S[c] + keys[c]^T values[c], from S[0] =
/// start [n, key dim, value dim]. U, values [chunks, n, 64, value dim]; W, keys [chunks, n, 64, key dim]; decay
/// [chunks, n, 1 or key dim, 1]; states [chunks + 1, n, key dim, value dim].
struct StateChain {
    at::Tensor states, values;
};
StateChain state_chain(const at::Tensor& U, const at::Tensor& W, const at::Tensor& keys, const at::Tensor& decay,
                       const at::Tensor& start);

}  // namespace amalgam
