// SPDX-License-Identifier: Apache-2.0
#include "mixers/chunk_form.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// The inverses of the diagonal blocks of twice the size follow from those of one size by products alone, which devices
/// do much faster than batched substitutions:
///     [B 0; C D]^-1 = [B^-1 0; -D^-1 C B^-1 D^-1]
struct UnitLowerInverse : Function<UnitLowerInverse> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& A) {
        const at::Tensor index = at::arange(chunk_form_tokens, A.options().dtype(at::kLong));
        // Rows and columns whose numbers differ first in the bit `size` are the blocks C of that size.
        const at::Tensor difference = index.unsqueeze(1).bitwise_xor(index);
        at::Tensor inverse = at::eye(chunk_form_tokens, A.options()).expand_as(A);
        for (int64_t size = 1; size < chunk_form_tokens; size *= 2) {
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

/// One function, so that a chunk costs three operations each way; the gradients that do not pass from chunk to chunk
/// are computed for all at once.
struct Chain : Function<Chain> {
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
                at::sum_to(S * d_next, decay.sizes()), d_states.select(0, 0)};
    }
};

}  // namespace

at::Tensor in_chunks(const at::Tensor& t) {
    const int64_t missing = (chunk_form_tokens - t.size(1) % chunk_form_tokens) % chunk_form_tokens;
    at::Tensor whole = t;
    if (missing > 0) {
        auto sizes = t.sizes().vec();
        sizes[1] = missing;
        whole = at::cat({t, at::zeros(sizes, t.options())}, 1);
    }
    // [batch, chunks, 64, heads, ...]
    const at::Tensor chunks = whole.unflatten(1, {whole.size(1) / chunk_form_tokens, chunk_form_tokens});
    return chunks.movedim(3, 1).movedim(2, 0).flatten(1, 2).contiguous();
}

at::Tensor out_of_chunks(const at::Tensor& t, int64_t batch, int64_t time) {
    return t.unflatten(1, {batch, t.size(1) / batch}).permute({1, 0, 3, 2, 4}).flatten(1, 2).narrow(1, 0, time);
}

at::Tensor above_diagonal(at::Device device) {
    return at::ones({chunk_form_tokens, chunk_form_tokens}, at::TensorOptions(device).dtype(at::kBool)).triu(1);
}

at::Tensor unit_lower_inverse(const at::Tensor& A) {
    return UnitLowerInverse::apply(A.flatten(0, -3)).view_as(A);
}

/// LibTorch's refuses to be deterministic on GPUs, and a product with a
/// triangle of ones may round its operands there.
at::Tensor running_sum(at::Tensor t) {
    for (int64_t distance = 1; distance < chunk_form_tokens; distance *= 2)
        t = t + at::constant_pad_nd(t.narrow(-2, 0, chunk_form_tokens - distance), {0, 0, distance, 0});
    return t;
}

/// The diagonal, then blocks of twice the size from those of one size. What a later half of a block reads of the
/// earlier one passes over the later one's first token: with that as anchor, every exponent is of a decay, however
/// strong, and P is a product.
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

StateChain state_chain(const at::Tensor& U, const at::Tensor& W, const at::Tensor& keys, const at::Tensor& decay,
                       const at::Tensor& start) {
    const auto result = Chain::apply(U, W, keys, decay, start);
    return {result[0], result[1]};
}

}  // namespace amalgam
