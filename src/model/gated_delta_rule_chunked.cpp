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

#include "model/gated_delta_rule.h"

namespace amalgam {
namespace {

constexpr int64_t chunk = 64;

/// [batch, time, heads, ...] -> [batch, heads, chunks, 64, ...], filled up with zeros: such tokens leave the state
/// alone.
at::Tensor in_chunks(const at::Tensor& t) {
    const int64_t missing = (chunk - t.size(1) % chunk) % chunk;
    at::Tensor whole = t;
    if (missing > 0) {
        auto sizes = t.sizes().vec();
        sizes[1] = missing;
        whole = at::cat({t, at::zeros(sizes, t.options())}, 1);
    }
    return whole.transpose(1, 2).unflatten(2, {whole.size(1) / chunk, chunk});
}

}  // namespace

at::Tensor gated_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                    const at::Tensor& beta, at::Tensor& state) {
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    const at::Tensor Q = in_chunks(q), K = in_chunks(k), V = in_chunks(v), b = in_chunks(beta).unsqueeze(-1);
    const at::Tensor G = in_chunks(g).cumsum(-1), last = G.narrow(-1, chunk - 1, 1);
    const at::Tensor eg = G.exp().unsqueeze(-1), er = (last - G).exp().unsqueeze(-1), e_last = last.exp().unsqueeze(-1);
    // Masked before exp: above the diagonal the exponent is positive and may overflow.
    const at::Tensor upper = at::ones({chunk, chunk}, q.options().dtype(at::kBool)).triu(1);
    const at::Tensor Gam = (G.unsqueeze(-1) - G.unsqueeze(-2)).masked_fill(upper, -INFINITY).exp();
    const at::Tensor Kt = K.transpose(-1, -2);

    const at::Tensor A = (b * at::matmul(K, Kt) * Gam).tril(-1) + at::eye(chunk, q.options());
    const at::Tensor solved =
        at::linalg_solve_triangular(A, b * at::cat({V, eg * K}, -1), /*upper=*/false, /*left=*/true,
                                    /*unitriangular=*/true);
    const at::Tensor U = solved.narrow(-1, 0, value_dim), W = solved.narrow(-1, value_dim, key_dim);
    const at::Tensor decayed_keys = (er * K).transpose(-1, -2);

    at::Tensor S =
        state.defined() ? state.to(q.scalar_type()) : at::zeros({batch, heads, key_dim, value_dim}, q.options());
    std::vector<at::Tensor> states, values;
    for (int64_t c = 0; c < Q.size(2); ++c) {
        states.push_back(S);
        values.push_back(U.select(2, c) - at::matmul(W.select(2, c), S));
        S = e_last.select(2, c) * S + at::matmul(decayed_keys.select(2, c), values.back());
    }
    if (state.defined()) state = S.to(at::kFloat);
    const at::Tensor o =
        eg * at::matmul(Q, at::stack(states, 2)) + at::matmul(Gam * at::matmul(Q, Kt), at::stack(values, 2));
    return o.flatten(2, 3).narrow(2, 0, time).transpose(1, 2);
}

}  // namespace amalgam
