// SPDX-License-Identifier: Apache-2.0
// The chunk form of Kimi Delta Attention (arXiv 2510.26692) in LibTorch operations: the readable form, and the path of
// devices and types that have no kernel.
//
// Of one chunk (rows are its tokens): G the cumulated log decays, a row of key channels for each token; eg = exp(G),
// er = exp(G_last - G), all elementwise; P(X) the decayed products with K (chunk_form.h); A the strictly lower
// part of b P(K), b = beta:
//     V' = (I + A)^-1 (b V) - (I + A)^-1 (b eg K) S,   O = (eg Q) S + P(Q) V',   S <- diag(exp(G_last)) S + (er K)^T V'
#include <ATen/ATen.h>

#include "mixers/chunk_form.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"

namespace amalgam {

at::Tensor kimi_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                   const at::Tensor& beta, at::Tensor& state) {
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    const at::Tensor Q = in_chunks(q), K = in_chunks(k), V = in_chunks(v), b = in_chunks(beta).unsqueeze(-1);
    const at::Tensor G = running_sum(in_chunks(g)), last = G.narrow(-2, chunk_form_tokens - 1, 1);
    const at::Tensor eg = G.exp(), er = (last - G).exp(), e_last = last.exp().transpose(-1, -2);

    const auto products = at::unbind(decayed_products(at::stack({Q, K}), K, G));
    const at::Tensor inverse = unit_lower_inverse((b * products[1]).tril(-1));
    const at::Tensor start = state.defined() ? state.to(q.scalar_type()).flatten(0, 1)
                                             : at::zeros({batch * heads, key_dim, value_dim}, q.options());
    const auto [states, values] =
        state_chain(at::matmul(inverse, b * V), at::matmul(inverse, b * eg * K), er * K, e_last, start);
    const int64_t chunks = Q.size(0);
    if (state.defined()) state = states.select(0, chunks).unflatten(0, {batch, heads}).to(state.scalar_type());
    const at::Tensor o = at::matmul(eg * Q, states.narrow(0, 0, chunks)) + at::matmul(products[0], values);
    return out_of_chunks(o, batch, time);
}

}  // namespace amalgam
