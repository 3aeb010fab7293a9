// SPDX-License-Identifier: Apache-2.0
// The mixer gated_linear_attention, and the operation under it.
#include "mixers/gated_linear_attention/gated_linear_attention.h"

#include <gtest/gtest.h>

#include <set>

#include "../operations/gradient_check.h"
#include "../storage/temporary_folder.h"
#include "mixer_gradients.h"
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"

namespace amalgam {
namespace {

constexpr const char* gated_linear_attention_mixer = "gated_linear_attention";

TEST(GatedLinearAttention, options_have_their_parameters) {
    std::set<std::string> bare = {"q_proj.weight",    "k_proj.weight",  "v_proj.weight", "gk_proj.0.weight",
                                  "gk_proj.1.weight", "gk_proj.1.bias", "o_proj.weight"};
    Options options = {{"output_gate", false}, {"output_norm", false}};
    EXPECT_EQ(test::parameters_of(gated_linear_attention_mixer, options), bare);
    options["output_norm"] = true;
    bare.insert("o_norm.weight");
    EXPECT_EQ(test::parameters_of(gated_linear_attention_mixer, options), bare);
    options["output_gate"] = true;
    bare.insert("g_proj.weight");
    EXPECT_EQ(test::parameters_of(gated_linear_attention_mixer, options), bare);
}

TEST(GatedLinearAttention, is_the_same_in_any_type_and_on_any_device) {
    for (const bool gate : {false, true}) {
        for (const bool norm : {false, true}) {
            const Options options = {{"output_gate", gate}, {"output_norm", norm}};
            ModelConfig config = test::small_config("llama", 1);
            config.head_dim = 64;
            const ModelSpec spec{config, {gated_linear_attention_mixer}, options};
            const auto expected = test::forward_and_backward(spec, at::kCPU, at::kDouble);  // by LibTorch operations
            const auto exact = test::forward_and_backward(spec, test::device(), at::kFloat),
                       narrow = test::forward_and_backward(spec, test::device(), at::kBFloat16);
            ASSERT_EQ(narrow.size(), expected.size());
            for (size_t i = 0; i < expected.size(); ++i) {
                EXPECT_GT(expected[i].abs().max().item<double>(), 1e-6) << "result " << i;
                EXPECT_LT(test::relative_error(exact[i], expected[i]), 2e-5) << gate << norm << " result " << i;
                EXPECT_LT(test::relative_error(narrow[i], expected[i]), 3e-2) << gate << norm << " result " << i;
            }
        }
    }
}

TEST(GatedLinearAttention, kernels_and_operations_agree) {
    for (const auto& [head_dim, gate] : {std::pair{8, true}, {7, true}, {64, false}}) {
        const LinearAttentionShape shape{2, head_dim, gate, 1e-6};
        const int64_t columns = (gate ? 4 : 3) * shape.width();
        test::expect_fp64_gradients(
            [&](const test::Inputs& x) { return gated_linear_attention_mixing(x[0], x[1], x[2], shape, nullptr); },
            {test::normal_numbers({2, 70, columns}, 1), test::normal_numbers({2, 70, shape.width()}, 2),
             test::normal_numbers({head_dim}, 3)},
            1e-5);
    }
}

}  // namespace
}  // namespace amalgam
