// SPDX-License-Identifier: Apache-2.0
// The chunk form of the gated delta rule in LibTorch operations: the readable form, and the path of devices and types
// that have no kernel. Everything that does not need the state is computed for all chunks at once; only the short chain
// of states walks over them.
//
// Of one chunk (rows are its tokens): G the cumulated log gates, eg = exp(G), er = exp(G_last - G), Gam_ij = exp(G_i -
// G_j) for i >= j, A the strictly lower part of beta_i k_i.k_j Gam_ij, b = beta:
//     V' = (I + A)^-1 (b V) - (I + A)^-1 (b eg K) S,   O = eg (Q S) + (Gam * Q K^T) V',   S <- exp(G_last) S + (er K)^T
//     V'
#include <ATen/ATen.h>

#include "mixers/chunk_form.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"

namespace amalgam {

at::Tensor gated_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                    const at::Tensor& beta, at::Tensor& state) {
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    const at::Tensor Q = in_chunks(q), K = in_chunks(k), V = in_chunks(v), b = in_chunks(beta).unsqueeze(-1);
    const at::Tensor upper = above_diagonal(q.device());
    // A cumulative sum; that of LibTorch refuses to be deterministic on GPUs.
    const at::Tensor G = in_chunks(g).unsqueeze(-2).masked_fill(upper, 0.0).sum(-1),
                     last = G.narrow(-1, chunk_form_tokens - 1, 1);
    const at::Tensor eg = G.exp().unsqueeze(-1), er = (last - G).exp().unsqueeze(-1), e_last = last.exp().unsqueeze(-1);
    // Masked before exp: above the diagonal the exponent is positive and may overflow.
    const at::Tensor Gam = (G.unsqueeze(-1) - G.unsqueeze(-2)).masked_fill(upper, -INFINITY).exp();
    const at::Tensor Kt = K.transpose(-1, -2);

    const at::Tensor A = (b * at::matmul(K, Kt) * Gam).tril(-1);
    const at::Tensor inverse = unit_lower_inverse(A);
    const at::Tensor start = state.defined() ? state.to(q.scalar_type()).flatten(0, 1)
                                             : at::zeros({batch * heads, key_dim, value_dim}, q.options());
    const auto [states, values] =
        state_chain(at::matmul(inverse, b * V), at::matmul(inverse, (b * eg) * K), er * K, e_last, start);
    const int64_t chunks = Q.size(0);
    if (state.defined()) state = states.select(0, chunks).unflatten(0, {batch, heads}).to(state.scalar_type());
    const at::Tensor o = eg * at::matmul(Q, states.narrow(0, 0, chunks)) + at::matmul(Gam * at::matmul(Q, Kt), values);
    return out_of_chunks(o, batch, time);
}

}  // namespace amalgam
