// SPDX-License-Identifier: Apache-2.0
#include "operations/partial_attention.h"

#include <ATen/ATen.h>

#include "operations/attention_backend.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

/// Heads of queries that share a head of keys, [batch, kv heads * group, time, ...], as more queries of that head,
/// [batch, kv heads, group * time, ...]: order does not matter to keys that all of them see. And back.
at::Tensor folded(const at::Tensor& t, int64_t kv_heads) {
    return t.unflatten(1, {kv_heads, t.size(1) / kv_heads}).flatten(2, 3);
}
at::Tensor unfolded(const at::Tensor& t, int64_t time) {
    return t.unflatten(2, {t.size(2) / time, time}).flatten(1, 2);
}

at::Tensor sum_of_query_heads(const at::Tensor& t, int64_t kv_heads) {
    return t.size(1) == kv_heads ? t : t.unflatten(1, {kv_heads, t.size(1) / kv_heads}).sum(2);
}

/// CPUs take equal numbers of heads: keys that all queries see are shared by folding, others are repeated.
Attended attend_on_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, AttentionMask mask) {
    const int64_t heads = q.size(1), time = q.size(2);
    if (mask == AttentionMask::causal) {
        const auto [o, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(q, for_query_heads(k, heads),
                                                                                  for_query_heads(v, heads), 0.0, true);
        return {o, log_sum.unsqueeze(-1), {}, {}};
    }
    const auto [o, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(folded(q, k.size(1)), k, v, 0.0, false);
    return {unfolded(o, time), unfolded(log_sum, time).unsqueeze(-1), {}, {}};
}

AttendedGradients attend_backward_on_cpu(const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                         const at::Tensor& v, const Attended& all, AttentionMask mask) {
    const int64_t heads = q.size(1), kv_heads = k.size(1);
    const at::Tensor log_sum = all.log_sum.squeeze(-1);
    if (mask == AttentionMask::causal) {
        const auto [d_q, d_k, d_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
            d_o, q, for_query_heads(k, heads), for_query_heads(v, heads), all.o, log_sum, 0.0, true);
        return {d_q, sum_of_query_heads(d_k, kv_heads), sum_of_query_heads(d_v, kv_heads)};
    }
    const auto fold = [&](const at::Tensor& t) { return folded(t, kv_heads); };
    const auto [d_q, d_k, d_v] = at::_scaled_dot_product_flash_attention_for_cpu_backward(
        fold(d_o), fold(q), k, v, fold(all.o), fold(log_sum), 0.0, false);
    return {unfolded(d_q, q.size(2)), d_k, d_v};
}

/// cuDNN wants the gradient of o with the strides of o.
at::Tensor laid_out_as(const at::Tensor& o, const at::Tensor& d_o) {
    return d_o.strides() == o.strides() ? d_o : at::empty_like(o).copy_(d_o);
}

}  // namespace

std::optional<PartialAttention> partial_attention_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    if (!q.is_cuda()) return PartialAttention::cpu;
    if (q.scalar_type() != at::kBFloat16 || q.size(-1) % 8 != 0) return std::nullopt;
    switch (choose_attention_backend(q, k, v)) {
        case at::SDPBackend::cudnn_attention:
            return PartialAttention::cudnn;
        case at::SDPBackend::flash_attention:
            return PartialAttention::flash;
        default:
            return std::nullopt;
    }
}

Attended Attended::narrow(int64_t first, int64_t count) const {
    return {o.narrow(2, first, count), log_sum.narrow(2, first, count), seed, offset};
}

Attended attend(PartialAttention by, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                AttentionMask mask) {
    if (by == PartialAttention::cpu) return attend_on_cpu(q, k, v, mask);
    const bool causal = mask == AttentionMask::causal;
    if (by == PartialAttention::cudnn) {
        const auto all = at::_scaled_dot_product_cudnn_attention(q, k, v, {}, true, 0.0, causal);
        return {std::get<0>(all), std::get<1>(all), std::get<6>(all), std::get<7>(all)};
    }
    const auto all = at::_scaled_dot_product_flash_attention(q, k, v, 0.0, causal);
    return {std::get<0>(all), std::get<1>(all).unsqueeze(-1), std::get<6>(all), std::get<7>(all)};
}

void merge_into(const Attended& sum, const std::vector<Attended>& others) {
    at::Tensor log_sum = sum.log_sum;
    for (const Attended& part : others) log_sum = at::logaddexp(log_sum, part.log_sum);
    at::Tensor o = sum.o * (sum.log_sum - log_sum).exp();
    for (const Attended& part : others) o.addcmul_(part.o.to(o.scalar_type()), (part.log_sum - log_sum).exp());
    sum.o.copy_(o);
    sum.log_sum.copy_(log_sum);
}

AttendedGradients attend_backward(PartialAttention by, const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const Attended& all, AttentionMask mask) {
    if (by == PartialAttention::cpu) return attend_backward_on_cpu(d_o, q, k, v, all, mask);
    const bool causal = mask == AttentionMask::causal;
    const at::Tensor o = all.o.is_non_overlapping_and_dense() ? all.o : all.o.contiguous(), d = laid_out_as(o, d_o),
                     log_sum = all.log_sum.contiguous();
    const auto gradients =
        by == PartialAttention::cudnn
            ? at::_scaled_dot_product_cudnn_attention_backward(d, q, k, v, o, log_sum, all.seed, all.offset, {}, {}, {},
                                                               q.size(2), k.size(2), 0.0, causal)
            : at::_scaled_dot_product_flash_attention_backward(d, q, k, v, o, log_sum.squeeze(-1), {}, {}, q.size(2),
                                                               k.size(2), 0.0, causal, all.seed, all.offset);
    return {std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)};
}

}  // namespace amalgam
