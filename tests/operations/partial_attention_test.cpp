// SPDX-License-Identifier: Apache-2.0
#include "operations/partial_attention.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "../model/small_model.h"

namespace amalgam {
namespace {

/// q, and k and v of each set, the last of which q sees causally. -> o, d_q, and d_k and d_v of each set.
std::vector<at::Tensor> in_parts(const std::vector<at::Tensor>& t, const at::Tensor& d_o) {
    const at::Tensor& q = t[0];
    const auto mask = [&](size_t k) { return k + 2 == t.size() ? AttentionMask::causal : AttentionMask::none; };
    const PartialAttention by = *partial_attention_of(q, t[1], t[2]);
    std::vector<Attended> parts;
    for (size_t k = 1; k < t.size(); k += 2) parts.push_back(attend(by, q, t[k], t[k + 1], mask(k)));
    const Attended all = parts.back();
    parts.pop_back();
    merge_into(all, parts);
    std::vector<at::Tensor> results = {all.o, at::Tensor()};
    for (size_t k = 1; k < t.size(); k += 2) {
        const AttendedGradients found = attend_backward(by, d_o, q, t[k], t[k + 1], all, mask(k));
        results[1] = results[1].defined() ? results[1] + found.q : found.q;
        results.insert(results.end(), {found.k, found.v});
    }
    return results;
}

/// The same with all weights in memory.
std::vector<at::Tensor> by_definition(const std::vector<at::Tensor>& inputs, const at::Tensor& d_o) {
    std::vector<at::Tensor> t, k, v;
    for (const at::Tensor& input : inputs) t.push_back(input.detach().requires_grad_(true));
    for (size_t i = 1; i < t.size(); i += 2) {
        k.push_back(t[i]);
        v.push_back(t[i + 1]);
    }
    const at::Tensor &q = t[0], all_k = at::cat(k, 2), all_v = at::cat(v, 2);
    const int64_t group = q.size(1) / all_k.size(1), time = q.size(2), keys = all_k.size(2);
    const at::Tensor hidden = at::ones({time, keys}, test::on_device(at::kBool)).triu(keys - time + 1);
    const at::Tensor scores = at::matmul(q, all_k.repeat_interleave(group, 1).transpose(2, 3)) / std::sqrt(q.size(3));
    const at::Tensor o =
        at::matmul(scores.masked_fill(hidden, -INFINITY).softmax(-1), all_v.repeat_interleave(group, 1));
    std::vector<at::Tensor> results = torch::autograd::grad({o}, t, {d_o});
    results.insert(results.begin(), o.detach());
    return results;
}

TEST(PartialAttention, parts_are_attention_to_all_keys) {
    for (const int64_t kv_heads : {1, 2, 4})
        for (const std::vector<int64_t>& before : {std::vector<int64_t>{}, {1}, {70}, {64, 3, 40}}) {
            uint64_t seed = 0;
            const auto numbers = [&](int64_t of_heads, int64_t tokens) {
                return test::normal_numbers({2, tokens, of_heads, 64}, ++seed).transpose(1, 2);
            };
            std::vector<at::Tensor> inputs = {numbers(4, 33)};
            for (const int64_t tokens : before)
                for (int i = 0; i < 2; ++i) inputs.push_back(numbers(kv_heads, tokens));
            for (int i = 0; i < 2; ++i) inputs.push_back(numbers(kv_heads, 33));
            const at::Tensor d_o = numbers(4, 33);
            const auto in_type = [&](at::ScalarType type) {
                std::vector<at::Tensor> all;
                for (const at::Tensor& t : inputs) all.push_back(t.to(type));
                return all;
            };
            const auto expected = by_definition(in_type(at::kDouble), d_o.to(at::kDouble));
            for (const auto& [type, most] :
                 {std::pair(at::kDouble, 1e-13), std::pair(at::kFloat, 2e-6), std::pair(at::kBFloat16, 2e-2)}) {
                const auto t = in_type(type);
                if (!partial_attention_of(t[0], t[1], t[2])) {
                    EXPECT_TRUE(test::device().is_cuda() && type != at::kBFloat16) << type;
                    continue;
                }
                const auto found = in_parts(t, d_o.to(type));
                for (size_t i = 0; i < expected.size(); ++i)
                    EXPECT_LT(test::relative_error(found[i], expected[i]), most)
                        << kv_heads << " heads of keys, " << before.size() << " sets before, " << type << ", " << i;
            }
        }
}

}  // namespace
}  // namespace amalgam
