// SPDX-License-Identifier: Apache-2.0
// Attention to two sets of keys is that to each, weighted by its share of the sum of exponentials: with outputs o_1,
// o_2 and logarithms of these sums l_1, l_2,
//     l = log(e^l_1 + e^l_2),   o = e^(l_1 - l) o_1 + e^(l_2 - l) o_2.
// The backward pass of either set needs o and l alone (the weights are e^(q.k - l), Dao, arXiv 2307.08691, algorithm
// 2), so that it is LibTorch's of each set, given the o and l of both.
#include "operations/attention_after.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "operations/operations.h"
#include "operations/products.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// Heads of queries that share a head of keys, [batch, kv heads * group, time, ...], as more queries of that head,
/// [batch, kv heads, group * time, ...]: order does not matter to keys that all of them see. And back.
at::Tensor folded(const at::Tensor& t, int64_t kv_heads) {
    return t.unflatten(1, {kv_heads, t.size(1) / kv_heads}).flatten(2, 3);
}
at::Tensor unfolded(const at::Tensor& t, int64_t time) {
    return t.unflatten(2, {t.size(2) / time, time}).flatten(1, 2);
}

at::Tensor for_query_heads(const at::Tensor& t, int64_t heads) {
    return t.size(1) == heads ? t : t.repeat_interleave(heads / t.size(1), 1);
}
at::Tensor sum_of_query_heads(const at::Tensor& t, int64_t kv_heads) {
    return t.size(1) == kv_heads ? t : t.unflatten(1, {kv_heads, t.size(1) / kv_heads}).sum(2);
}

struct AttentionAfter : Function<AttentionAfter> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& k_before, const at::Tensor& v_before) {
        const int64_t heads = q.size(1), kv_heads = k.size(1), time = q.size(2);
        const auto [own, own_log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(
            q, for_query_heads(k, heads), for_query_heads(v, heads), 0.0, /*is_causal=*/true);
        const auto [before, before_log_sum] =
            at::_scaled_dot_product_flash_attention_for_cpu(folded(q, kv_heads), k_before, v_before);
        const at::Tensor of_before = unfolded(before_log_sum, time), log_sum = at::logaddexp(own_log_sum, of_before);
        const auto share = [&](const at::Tensor& part) { return (part - log_sum).exp().unsqueeze(-1); };
        const at::Tensor o = (own * share(own_log_sum) + unfolded(before, time) * share(of_before)).to(q.scalar_type());
        ctx->save_for_backward({q, k, v, k_before, v_before, o, log_sum});
        return o;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &k_before = saved[3], &v_before = saved[4],
                         &o = saved[5], &log_sum = saved[6], &d_o = gradients[0];
        const int64_t heads = q.size(1), kv_heads = k.size(1);
        const auto [dq, dk, dv] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
            d_o, q, for_query_heads(k, heads), for_query_heads(v, heads), o, log_sum, 0.0, /*is_causal=*/true);
        const auto [dq_folded, dk_before, dv_before] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
            folded(d_o, kv_heads), folded(q, kv_heads), k_before, v_before, folded(o, kv_heads),
            folded(log_sum, kv_heads), 0.0, /*is_causal=*/false);
        return {dq + unfolded(dq_folded, q.size(2)), sum_of_query_heads(dk, kv_heads), sum_of_query_heads(dv, kv_heads),
                dk_before, dv_before};
    }
};

}  // namespace

at::Tensor attention_after(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& k_before,
                           const at::Tensor& v_before) {
    if (k_before.size(2) == 0) return causal_attention(q, k, v);
    // As causal_attention.
    if (is_widened(q)) {
        const auto wide = [](const at::Tensor& t) { return t.to(at::kFloat); };
        return attention_after(wide(q), wide(k), wide(v), wide(k_before), wide(v_before)).to(q.scalar_type());
    }
    return AttentionAfter::apply(q, k, v, k_before, v_before);
}

}  // namespace amalgam
