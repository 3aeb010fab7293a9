// SPDX-License-Identifier: Apache-2.0
// The chunk form of Kimi Delta Attention (arXiv 2510.26692) in LibTorch operations: the readable form, and the path of
// devices and types that have no kernel.
//
// Of one chunk (rows are its tokens): G the cumulated log decays, a row of key channels for each token; eg = exp(G),
// er = exp(G_last - G), all elementwise; P(X)_ij = sum_c X_ic K_jc exp(G_ic - G_jc) for i >= j; A the strictly lower
// part of b P(K), b = beta:
//     V' = (I + A)^-1 (b V) - (I + A)^-1 (b eg K) S,   O = (eg Q) S + P(Q) V',   S <- diag(exp(G_last)) S + (er K)^T V'
#include <ATen/ATen.h>

#include "mixers/chunk_form.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"

namespace amalgam {
namespace {

/// P(X) of [..., 64, dim]: the diagonal, then blocks of twice the size from those of one size. What a later half of a
/// block reads of the earlier one passes over the later one's first token: with that as anchor, every exponent is of a
/// decay, however strong, and P is a product.
at::Tensor decayed_products(const at::Tensor& X, const at::Tensor& K, const at::Tensor& G) {
    at::Tensor blocks = (X * K).sum(-1).unsqueeze(-1).unsqueeze(-1);  // [..., count, size, size]
    for (int64_t size = 1; size < chunk_form_tokens; size *= 2) {
        const auto half = [&](const at::Tensor& t, int64_t which) {
            return t.unflatten(-2, {chunk_form_tokens / (2 * size), 2, size}).select(-3, which);
        };
        const at::Tensor decays = half(G, 1), anchor = decays.narrow(-2, 0, 1);
        const at::Tensor later = half(X, 1) * (decays - anchor).exp(),
                         earlier = half(K, 0) * (anchor - half(G, 0)).exp();
        const at::Tensor between = at::matmul(later, earlier.transpose(-1, -2));
        const at::Tensor within = blocks.unflatten(-3, {chunk_form_tokens / (2 * size), 2});
        blocks = at::cat({at::cat({within.select(-3, 0), at::zeros_like(between)}, -1),
                          at::cat({between, within.select(-3, 1)}, -1)},
                         -2);
    }
    return blocks.squeeze(-3);
}

/// Over the tokens of chunks [..., 64, dim]. LibTorch's refuses to be deterministic on GPUs, and a product with a
/// triangle of ones may round its operands there.
at::Tensor running_sum(at::Tensor t) {
    for (int64_t distance = 1; distance < chunk_form_tokens; distance *= 2)
        t = t + at::constant_pad_nd(t.narrow(-2, 0, chunk_form_tokens - distance), {0, 0, distance, 0});
    return t;
}

}  // namespace

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
