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
        const ModelSpec softmax = {c, all_softmax(3), {}};
        // QK^T and PV: 2 products of 2 flop for each of width channels and, in the mean, half of the positions.
        const double attention = 3.0 * 2.0 * double(c.query_heads * c.head_dim) * double(time);
        EXPECT_DOUBLE_EQ(forward_flops(softmax, time, false), 2.0 * double(matrix_elements(softmax)) + attention);
    }
}

TEST(ForwardFlops, of_linear_layers_do_not_depend_on_the_context) {
    const ModelConfig c = test::small_config("llama", 3);
    const ModelSpec linear = {c, all_linear(3, test::linear_mixer), {}};
    const double flops = forward_flops(linear, 100, false);
    EXPECT_EQ(forward_flops(linear, 100000, false), flops);
    EXPECT_GT(flops, 2.0 * double(matrix_elements(linear)));
    EXPECT_GT(forward_flops({c, keep_softmax(3, test::linear_mixer, {1}), {}}, 100000, false), flops);
}

/// Every mixer with every choice of its options, so that none can be counted with the defaults of another.
TEST(ForwardFlops, are_those_of_the_matrices_that_a_student_has) {
    const ModelConfig c = test::small_config("llama", 3);
    const double heads = double(c.query_heads), dim = double(c.head_dim);
    // The chunk forms: states, and products with 64 tokens of d channels each.
    const std::map<std::string, double> rules = {{"gated_delta_net", 3.0 * heads * (6 * dim * dim + 512 * dim)},
                                                 {"gated_linear_attention", 3.0 * heads * (4 * dim * dim + 256 * dim)},
                                                 {"kimi_delta_attention", 3.0 * heads * (6 * dim * dim + 512 * dim)}};
    for (const auto& [mixer, rule] : rules)
        for (const bool gate : {true, false}) {
            const ModelSpec spec = {c, all_linear(3, mixer), {{"output_gate", gate}}};
            EXPECT_DOUBLE_EQ(forward_flops(spec, 100, false), 2.0 * double(matrix_elements(spec)) + rule)
                << mixer << (gate ? " with" : " without") << " gate";
        }
}

TEST(ForwardFlops, of_the_head) {
    const ModelSpec softmax = {test::small_config("llama", 3), all_softmax(3), {}};
    EXPECT_DOUBLE_EQ(forward_flops(softmax, 10, true) - forward_flops(softmax, 10, false),
                     2.0 * double(softmax.config.hidden_size * softmax.config.vocabulary_size));
}

TEST(TrainingFlops, without_output_gate_are_fewer) {
    const ModelConfig c = test::small_config("llama", 3);
    const Layout layout = keep_softmax(3, test::linear_mixer, {1});
    const ModelSpec with = {c, layout, {}}, without = {c, layout, {{"output_gate", false}}};
    // Of each of the two linear layers one matrix less, forward and twice backward.
    const double gates = 3.0 * 2.0 * 2.0 * double(c.hidden_size * c.query_heads * c.head_dim);
    EXPECT_DOUBLE_EQ(distillation_flops(with, 10) - distillation_flops(without, 10), gates);
    EXPECT_DOUBLE_EQ(known_states_flops(with, 10) - known_states_flops(without, 10), gates);
    EXPECT_DOUBLE_EQ(alignment_flops(with, 10) - alignment_flops(without, 10), gates * 3.0 / 2.0);
}

}  // namespace
}  // namespace amalgam
