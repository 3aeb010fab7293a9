// SPDX-License-Identifier: Apache-2.0
// Attention to two sets of keys is that to each, weighted by its share of the sum of exponentials: with outputs o_1,
// o_2 and logarithms of these sums l_1, l_2,
//     l = log(e^l_1 + e^l_2),   o = e^(l_1 - l) o_1 + e^(l_2 - l) o_2.
// The backward pass of either set needs o and l alone (the weights are e^(q.k - l), Dao, arXiv 2307.08691, algorithm
// 2), so that it is LibTorch's of each set, given the o and l of both.
#include "operations/attention_after.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "operations/attention_backend.h"
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

at::Tensor sum_of_query_heads(const at::Tensor& t, int64_t kv_heads) {
    return t.size(1) == kv_heads ? t : t.unflatten(1, {kv_heads, t.size(1) / kv_heads}).sum(2);
}

/// Who computes the attention to one set of keys.
enum class By : int64_t { cpu, flash, cudnn };

By who_attends(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    if (!q.is_cuda()) return By::cpu;
    return choose_attention_backend(q, k, v) == at::SDPBackend::cudnn_attention ? By::cudnn : By::flash;
}

/// Of one set of keys. log_sum [batch, heads, time]; cuDNN's has a last dimension of 1.
struct Attended {
    at::Tensor o, log_sum;
    at::Tensor seed, offset;  // of no dropout; GPUs' backward passes want them
};

/// Heads of keys may be fewer, except on CPUs.
Attended attend(By by, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, bool causal) {
    if (by == By::cpu) {
        const auto [o, log_sum] = at::_scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal);
        return {o, log_sum, {}, {}};
    }
    const auto all = by == By::flash ? at::_scaled_dot_product_flash_attention(q, k, v, 0.0, causal)
                                     : at::_scaled_dot_product_cudnn_attention(q, k, v, {}, true, 0.0, causal);
    return {std::get<0>(all), std::get<1>(all), std::get<6>(all), std::get<7>(all)};
}

struct AttendedGradients {
    at::Tensor q, k, v;
};

/// `all`: of all sets of keys.
AttendedGradients attend_backward(By by, const at::Tensor& d_o, const at::Tensor& q, const at::Tensor& k,
                                  const at::Tensor& v, const Attended& all, bool causal) {
    const auto gradients = [&] {
        if (by == By::cpu)
            return at::_scaled_dot_product_flash_attention_for_cpu_backward(d_o, q, k, v, all.o, all.log_sum, 0.0,
                                                                            causal);
        if (by == By::flash)
            return at::_scaled_dot_product_flash_attention_backward(d_o, q, k, v, all.o, all.log_sum, {}, {}, q.size(2),
                                                                    k.size(2), 0.0, causal, all.seed, all.offset);
        return at::_scaled_dot_product_cudnn_attention_backward(d_o, q, k, v, all.o, all.log_sum, all.seed, all.offset,
                                                                {}, {}, {}, q.size(2), k.size(2), 0.0, causal);
    }();
    return {std::get<0>(gradients), std::get<1>(gradients), std::get<2>(gradients)};
}

/// CPUs take equal numbers of heads: keys that all queries see are shared by folding, others are repeated.
struct AttentionAfter : Function<AttentionAfter> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& k_before, const at::Tensor& v_before, By by) {
        const int64_t heads = q.size(1), kv_heads = k.size(1), time = q.size(2);
        const bool folds = by == By::cpu;
        const Attended own = folds ? attend(by, q, for_query_heads(k, heads), for_query_heads(v, heads), true)
                                   : attend(by, q, k, v, true);
        Attended before = attend(by, folds ? folded(q, kv_heads) : q, k_before, v_before, false);
        if (folds) before = {unfolded(before.o, time), unfolded(before.log_sum, time), {}, {}};
        const at::Tensor log_sum = at::logaddexp(own.log_sum, before.log_sum);
        const auto share = [&](const at::Tensor& part) {
            const at::Tensor s = (part - log_sum).exp();
            return s.dim() < q.dim() ? s.unsqueeze(-1) : s;
        };
        const at::Tensor o = (own.o * share(own.log_sum) + before.o * share(before.log_sum)).to(q.scalar_type());
        ctx->save_for_backward({q, k, v, k_before, v_before, o, log_sum, own.seed, own.offset});
        ctx->saved_data["by"] = int64_t(by);
        return o;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &k_before = saved[3], &v_before = saved[4];
        const Attended all{saved[5], saved[6], saved[7], saved[8]};
        const auto by = By(ctx->saved_data["by"].toInt());
        const at::Tensor& d_o = gradients[0];
        const int64_t heads = q.size(1), kv_heads = k.size(1), time = q.size(2);
        if (by != By::cpu) {
            const at::Tensor d = laid_out_as(all.o, d_o);
            const AttendedGradients own = attend_backward(by, d, q, k, v, all, true),
                                    before = attend_backward(by, d, q, k_before, v_before, all, false);
            return {own.q + before.q, own.k, own.v, before.k, before.v, at::Tensor()};
        }
        const AttendedGradients own =
            attend_backward(by, d_o, q, for_query_heads(k, heads), for_query_heads(v, heads), all, true);
        const auto fold = [&](const at::Tensor& t) { return folded(t, kv_heads); };
        const AttendedGradients before = attend_backward(by, fold(d_o), fold(q), k_before, v_before,
                                                         {fold(all.o), fold(all.log_sum), {}, {}}, false);
        return {own.q + unfolded(before.q, time),
                sum_of_query_heads(own.k, kv_heads),
                sum_of_query_heads(own.v, kv_heads),
                before.k,
                before.v,
                at::Tensor()};
    }

  private:
    /// cuDNN wants the gradient of o with the strides of o.
    static at::Tensor laid_out_as(const at::Tensor& o, const at::Tensor& d_o) {
        return d_o.strides() == o.strides() ? d_o : at::empty_like(o).copy_(d_o);
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
    return AttentionAfter::apply(q, k, v, k_before, v_before, who_attends(q, k, v));
}

bool has_attention_after(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    if (!q.is_cuda()) return true;
    if (q.scalar_type() != at::kBFloat16 || q.size(-1) % 8 != 0) return false;
    const at::SDPBackend backend = choose_attention_backend(q, k, v);
    return backend == at::SDPBackend::cudnn_attention || backend == at::SDPBackend::flash_attention;
}

}  // namespace amalgam
