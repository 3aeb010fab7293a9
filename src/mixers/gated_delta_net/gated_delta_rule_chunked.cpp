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
#include <torch/csrc/autograd/custom_function.h>

#include "mixers/gated_delta_net/gated_delta_rule.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

constexpr int64_t chunk = 64;

/// [batch, time, heads, ...] -> [chunks, batch * heads, 64, ...], filled up with zeros: such tokens leave the state
/// alone.
at::Tensor in_chunks(const at::Tensor& t) {
    const int64_t missing = (chunk - t.size(1) % chunk) % chunk;
    at::Tensor whole = t;
    if (missing > 0) {
        auto sizes = t.sizes().vec();
        sizes[1] = missing;
        whole = at::cat({t, at::zeros(sizes, t.options())}, 1);
    }
    const at::Tensor chunks = whole.unflatten(1, {whole.size(1) / chunk, chunk});  // [batch, chunks, 64, heads, ...]
    return chunks.movedim(3, 1).movedim(2, 0).flatten(1, 2).contiguous();
}

/// (I + A)^-1 of strictly lower triangular matrices [..., 64, 64]. The inverses of the diagonal blocks of twice the
/// size follow from those of one size by products alone, which devices do much faster than batched substitutions:
///     [B 0; C D]^-1 = [B^-1 0; -D^-1 C B^-1 D^-1]
struct UnitLowerInverse : Function<UnitLowerInverse> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& A) {
        const at::Tensor index = at::arange(chunk, A.options().dtype(at::kLong));
        // Rows and columns whose numbers differ first in the bit `size` are the blocks C of that size.
        const at::Tensor difference = index.unsqueeze(1).bitwise_xor(index);
        at::Tensor inverse = at::eye(chunk, A.options()).expand_as(A);
        for (int64_t size = 1; size < chunk; size *= 2) {
            const at::Tensor C = A * difference.ge(size).logical_and_(difference.lt(2 * size));
            inverse = size == 1 ? inverse - C : at::baddbmm(inverse, inverse, at::bmm(C, inverse), 1.0, -1.0);
        }
        ctx->save_for_backward({inverse});
        return inverse;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const at::Tensor transposed = ctx->get_saved_variables()[0].transpose(-1, -2);
        return {-at::bmm(transposed, at::bmm(gradients[0], transposed)).tril(-1)};
    }
};

/// The chain over chunks: values[c] = U[c] - W[c] S[c], S[c + 1] = decay[c] S[c] + keys[c]^T values[c], from S[0] =
/// start. Returns all states, [chunks + 1, n, key dim, value dim], and the values. One function, so that a chunk costs
/// three operations each way; the gradients that do not pass from chunk to chunk are computed for all at once.
struct StateChain : Function<StateChain> {
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& U, const at::Tensor& W, const at::Tensor& keys,
                               const at::Tensor& decay, const at::Tensor& start) {
        const int64_t chunks = U.size(0);
        const at::Tensor states = at::empty({chunks + 1, start.size(0), start.size(1), start.size(2)}, U.options());
        const at::Tensor values = at::empty(U.sizes(), U.options());
        states.select(0, 0).copy_(start);
        for (int64_t c = 0; c < chunks; ++c) {
            const at::Tensor S = states.select(0, c);
            at::Tensor next = states.select(0, c + 1), value = values.select(0, c);
            at::baddbmm_out(value, U.select(0, c), W.select(0, c), S, 1.0, -1.0);
            at::mul_out(next, decay.select(0, c), S);
            next.baddbmm_(keys.select(0, c).transpose(-1, -2), value);
        }
        ctx->save_for_backward({W, keys, decay, states, values});
        return {states, values};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &W = saved[0], &keys = saved[1], &decay = saved[2], &states = saved[3], &values = saved[4];
        const int64_t chunks = W.size(0);
        // d_states[c] is complete once the gradient through chunk c is in it.
        const at::Tensor& from_outputs = gradients[0];
        const at::Tensor d_states = at::empty(from_outputs.sizes(), from_outputs.options());
        const at::Tensor d_values = gradients[1].clone(at::MemoryFormat::Contiguous);
        d_states.select(0, chunks).copy_(from_outputs.select(0, chunks));
        for (int64_t c = chunks - 1; c >= 0; --c) {
            const at::Tensor d_next = d_states.select(0, c + 1);
            at::Tensor d_value = d_values.select(0, c), d_state = d_states.select(0, c);
            d_value.baddbmm_(keys.select(0, c), d_next);
            at::addcmul_out(d_state, from_outputs.select(0, c), decay.select(0, c), d_next);
            d_state.baddbmm_(W.select(0, c).transpose(-1, -2), d_value, 1.0, -1.0);
        }
        const at::Tensor S = states.narrow(0, 0, chunks), d_next = d_states.narrow(0, 1, chunks);
        return {d_values, -at::matmul(d_values, S.transpose(-1, -2)), at::matmul(values, d_next.transpose(-1, -2)),
                (S * d_next).sum({-2, -1}, /*keepdim=*/true), d_states.select(0, 0)};
    }
};

}  // namespace

at::Tensor gated_delta_rule_chunked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                                    const at::Tensor& beta, at::Tensor& state) {
    const int64_t batch = q.size(0), time = q.size(1), heads = q.size(2), key_dim = q.size(3), value_dim = v.size(3);
    const at::Tensor Q = in_chunks(q), K = in_chunks(k), V = in_chunks(v), b = in_chunks(beta).unsqueeze(-1);
    const at::Tensor upper = at::ones({chunk, chunk}, q.options().dtype(at::kBool)).triu(1);
    // A cumulative sum; that of LibTorch refuses to be deterministic on GPUs.
    const at::Tensor G = in_chunks(g).unsqueeze(-2).masked_fill(upper, 0.0).sum(-1), last = G.narrow(-1, chunk - 1, 1);
    const at::Tensor eg = G.exp().unsqueeze(-1), er = (last - G).exp().unsqueeze(-1), e_last = last.exp().unsqueeze(-1);
    // Masked before exp: above the diagonal the exponent is positive and may overflow.
    const at::Tensor Gam = (G.unsqueeze(-1) - G.unsqueeze(-2)).masked_fill(upper, -INFINITY).exp();
    const at::Tensor Kt = K.transpose(-1, -2);

    const at::Tensor A = (b * at::matmul(K, Kt) * Gam).tril(-1);
    const at::Tensor inverse = UnitLowerInverse::apply(A.flatten(0, 1)).view_as(A);
    const at::Tensor start = state.defined() ? state.to(q.scalar_type()).flatten(0, 1)
                                             : at::zeros({batch * heads, key_dim, value_dim}, q.options());
    const auto chain =
        StateChain::apply(at::matmul(inverse, b * V), at::matmul(inverse, (b * eg) * K), er * K, e_last, start);
    const at::Tensor &states = chain[0], &values = chain[1];
    const int64_t chunks = Q.size(0);
    if (state.defined()) state = states.select(0, chunks).unflatten(0, {batch, heads}).to(at::kFloat);
    const at::Tensor o = eg * at::matmul(Q, states.narrow(0, 0, chunks)) + at::matmul(Gam * at::matmul(Q, Kt), values);
    // [chunks, batch * heads, 64, dim] -> [batch, time, heads, dim]
    return o.unflatten(1, {batch, heads}).permute({1, 0, 3, 2, 4}).flatten(1, 2).narrow(1, 0, time);
}

}  // namespace amalgam
