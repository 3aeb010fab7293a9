// SPDX-License-Identifier: Apache-2.0
// The chunk form B of the gated delta rule in LibTorch operations: the readable form, and the path of devices and types
// that have no kernel. Letters as in the formulas of KERNELS: G cumulated log gates of a chunk, Gam_ij = exp(G_i - G_j)
// for i >= j, A the strictly lower part of beta_i k_i k_j, (I + A)^-1 applied by a triangular solve.
#include <ATen/ATen.h>

#include "model/gated_delta_rule.h"

namespace amalgam {

at::Tensor gated_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                    const at::Tensor& beta, at::Tensor& state) {
    constexpr int64_t chunk = 64;
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    at::Tensor S =
        state.defined() ? state.to(q.scalar_type()) : at::zeros({batch, heads, key_dim, value_dim}, q.options());
    std::vector<at::Tensor> outputs;
    for (int64_t first = 0; first < time; first += chunk) {
        const int64_t length = std::min(chunk, time - first);
        auto tile = [&](const at::Tensor& t) {
            return t.narrow(1, first, length).transpose(1, 2);
        };  // [batch, heads, length, dim]
        const auto Q = tile(q), K = tile(k), V = tile(v);
        const auto b = tile(beta).unsqueeze(-1);
        const auto G = tile(g).cumsum(-1);
        const auto eg = G.exp().unsqueeze(-1);
        const auto last = G.narrow(-1, length - 1, 1);
        const auto er = (last - G).exp().unsqueeze(-1);
        // Masked before exp: above the diagonal the exponent is positive and may overflow.
        const auto lower = at::ones({length, length}, q.options().dtype(at::kBool)).tril();
        const auto Gam = (G.unsqueeze(-1) - G.unsqueeze(-2)).masked_fill(lower.logical_not(), -INFINITY).exp();
        const auto Kt = K.transpose(-1, -2);

        const auto W = V - eg * at::matmul(K, S);
        // V' = (Gam * R * b) W with R = (I + SL(b K K^T))^-1, i.e. the solution of (I + SL(Gam * b K K^T)) V' = b W.
        const auto A = (b * at::matmul(K, Kt) * Gam).tril(-1);
        const auto V_new =
            at::linalg_solve_triangular(A + at::eye(length, A.options()), b * W, /*upper=*/false, /*left=*/true,
                                        /*unitriangular=*/true);
        outputs.push_back((eg * at::matmul(Q, S) + at::matmul(Gam * at::matmul(Q, Kt), V_new)).transpose(1, 2));
        S = last.exp().unsqueeze(-1) * S + at::matmul((er * K).transpose(-1, -2), V_new);
    }
    if (state.defined()) state = S.to(at::kFloat);
    return at::cat(outputs, 1);
}

}  // namespace amalgam
