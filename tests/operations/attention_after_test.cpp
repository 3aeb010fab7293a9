// SPDX-License-Identifier: Apache-2.0
#include "operations/attention_after.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "../model/small_model.h"

namespace amalgam {
namespace {

/// Output, and gradients of q, k, v and of the keys and values before.
std::vector<at::Tensor> with_gradients(
    const std::vector<at::Tensor>& inputs, at::ScalarType type,
    const std::function<at::Tensor(const std::vector<at::Tensor>& inputs)>& attention) {
    std::vector<at::Tensor> leaves;
    for (const at::Tensor& t : inputs) leaves.push_back(t.to(type).requires_grad_(true));
    const at::Tensor o = attention(leaves);
    std::vector<at::Tensor> results =
        torch::autograd::grad({o}, leaves, {test::normal_numbers(o.sizes(), 9).to(type)}, {}, false, true);
    results.push_back(o.detach());
    return results;
}

at::Tensor after(const std::vector<at::Tensor>& t) {
    return attention_after(t[0], t[1], t[2], t[3], t[4]);
}

/// With all weights in memory.
at::Tensor by_definition(const std::vector<at::Tensor>& t) {
    const at::Tensor &q = t[0], all_k = at::cat({t[3], t[1]}, 2), all_v = at::cat({t[4], t[2]}, 2);
    const int64_t group = q.size(1) / all_k.size(1), time = q.size(2), keys = all_k.size(2);
    const at::Tensor hidden = at::ones({time, keys}, test::on_device(at::kBool)).triu(keys - time + 1);
    const at::Tensor scores = at::matmul(q, all_k.repeat_interleave(group, 1).transpose(2, 3)) / std::sqrt(q.size(3));
    return at::matmul(scores.masked_fill(hidden, -INFINITY).softmax(-1), all_v.repeat_interleave(group, 1));
}

TEST(AttentionAfter, is_attention_to_all_keys) {
    for (const int64_t kv_heads : {1, 2, 4})
        for (const int64_t before : {0, 1, 70}) {
            const auto numbers = [&](int64_t of_heads, int64_t tokens, uint64_t seed) {
                return test::normal_numbers({2, tokens, of_heads, 64}, seed).transpose(1, 2);
            };
            const std::vector<at::Tensor> inputs = {numbers(4, 33, 1), numbers(kv_heads, 33, 2),
                                                    numbers(kv_heads, 33, 3), numbers(kv_heads, before, 4),
                                                    numbers(kv_heads, before, 5)};
            const auto expected = with_gradients(inputs, at::kDouble, by_definition);
            for (const auto& [type, most] :
                 {std::pair(at::kDouble, 1e-13), std::pair(at::kFloat, 2e-6), std::pair(at::kBFloat16, 2e-2)}) {
                if (!has_attention_after(inputs[0].to(type), inputs[1].to(type), inputs[2].to(type))) {
                    EXPECT_TRUE(test::device().is_cuda() && type != at::kBFloat16) << type;
                    continue;
                }
                const auto found = with_gradients(inputs, type, after);
                for (size_t i = 0; i < expected.size(); ++i)
                    if (expected[i].defined() && expected[i].numel() > 0) {
                        EXPECT_LT(test::relative_error(found[i], expected[i]), most)
                            << kv_heads << " heads of keys, " << before << " before, " << type << ", " << i;
                    }
            }
        }
}

}  // namespace
}  // namespace amalgam
