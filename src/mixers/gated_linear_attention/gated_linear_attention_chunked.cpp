// SPDX-License-Identifier: Apache-2.0
// The chunk form of gated linear attention (Yang et al., arXiv 2312.06635) in LibTorch operations: the readable form,
// and the path of devices and types that have no kernel.
//
// Of one chunk (rows are its tokens): G the cumulated log decays, a row of key channels for each token; eg = exp(G),
// er = exp(G_last - G), all elementwise; P(Q) the decayed products with K (chunk_form.h):
//     O = (eg Q) S + P(Q) V,   S <- diag(exp(G_last)) S + (er K)^T V
#include <ATen/ATen.h>

#include "mixers/chunk_form.h"
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"

namespace amalgam {

at::Tensor gated_linear_attention_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                          const at::Tensor& g, at::Tensor& state) {
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    const at::Tensor Q = in_chunks(q), K = in_chunks(k), V = in_chunks(v);
    const at::Tensor G = running_sum(in_chunks(g)), last = G.narrow(-2, chunk_form_tokens - 1, 1);
    const at::Tensor start = state.defined() ? state.to(q.scalar_type()).flatten(0, 1)
                                             : at::zeros({batch * heads, key_dim, value_dim}, q.options());
    // A delta rule would take from V what the state predicts; here it takes nothing.
    const at::Tensor predicted = at::zeros_like(K);
    const at::Tensor states =
        state_chain(V, predicted, (last - G).exp() * K, last.exp().transpose(-1, -2), start).states;
    const int64_t chunks = Q.size(0);
    if (state.defined()) state = states.select(0, chunks).unflatten(0, {batch, heads}).to(state.scalar_type());
    const at::Tensor o =
        at::matmul(G.exp() * Q, states.narrow(0, 0, chunks)) + at::matmul(decayed_products(Q, K, G), V);
    return out_of_chunks(o, batch, time);
}

}  // namespace amalgam
