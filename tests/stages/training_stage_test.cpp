// SPDX-License-Identifier: Apache-2.0
// Counted floating-point operations against counts of the weights.
#include "stages/training_stage.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"

namespace amalgam {
namespace {

/// Elements of all matrices of the blocks, each of which is one multiplication and one addition per token.
int64_t matrix_elements(const ModelSpec& spec) {
    CausalLM model(spec, at::kCPU, at::kFloat, false);
    int64_t count = 0;
    for (const Parameter& p : model.parameters().all())
        if (p.layer >= 0 && p.shape.size() == 2) count += p.elements();
    return count;
}

TEST(ForwardFlops, are_two_for_each_weight_and_the_attention_products) {
    const ModelConfig c = test::small_config("llama", 3);
    for (const int64_t time : {1, 100, 4096}) {
        const Layout softmax = all_softmax(3);
        // QK^T and PV: 2 products of 2 flop for each of width channels and, in the mean, half of the positions.
        const double attention = 3.0 * 2.0 * double(c.query_heads * c.head_dim) * double(time);
        EXPECT_DOUBLE_EQ(forward_flops(c, softmax, time, false),
                         2.0 * double(matrix_elements({c, softmax, {}})) + attention);
    }
}

TEST(ForwardFlops, of_linear_layers_do_not_depend_on_the_context) {
    const ModelConfig c = test::small_config("llama", 3);
    const Layout linear = all_linear(3, test::linear_mixer);
    const double flops = forward_flops(c, linear, 100, false);
    EXPECT_EQ(forward_flops(c, linear, 100000, false), flops);
    EXPECT_GT(flops, 2.0 * double(matrix_elements({c, linear, {}})));
    EXPECT_GT(forward_flops(c, keep_softmax(3, test::linear_mixer, {1}), 100000, false), flops);
}

TEST(ForwardFlops, of_gated_linear_attention) {
    const ModelConfig c = test::small_config("llama", 3);
    LinearOptions options;
    options.activation = false;
    const Layout layout = all_linear(3, "gated_linear_attention");
    // The chunk form: states 4 d^2, and 4 products with 64 tokens of d channels each.
    const double rule = 3.0 * double(c.query_heads) * double(4 * c.head_dim * c.head_dim + 256 * c.head_dim);
    EXPECT_DOUBLE_EQ(forward_flops(c, layout, 100, false), 2.0 * double(matrix_elements({c, layout, options})) + rule);
}

TEST(ForwardFlops, of_the_head) {
    const ModelConfig c = test::small_config("llama", 3);
    EXPECT_DOUBLE_EQ(forward_flops(c, all_softmax(3), 10, true) - forward_flops(c, all_softmax(3), 10, false),
                     2.0 * double(c.hidden_size * c.vocabulary_size));
}

}  // namespace
}  // namespace amalgam
