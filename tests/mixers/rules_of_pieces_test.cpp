// SPDX-License-Identifier: Apache-2.0
// The rules of the linear mixers from piece to piece, the state handed on: where pieces begin at chunks of 64 tokens,
// every output and every gradient that is no sum over pieces has the bits that it has in the whole sequence. On GPUs
// they are close.
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>

#include "../model/small_model.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"

namespace amalgam {
namespace {

// GPUs' kernels take bf16 and heads of 64.
at::ScalarType type() {
    return test::device().is_cuda() ? at::kBFloat16 : at::kFloat;
}
int64_t head_dim() {
    return test::device().is_cuda() ? 64 : 16;
}
constexpr int64_t batch = 2, heads = 3, cut = 128, length = 200;

void expect_the_bits(const at::Tensor& found, const at::Tensor& expected) {
    if (test::device().is_cuda())
        EXPECT_LT(test::relative_error(found, expected), 0.01);
    else
        EXPECT_TRUE(at::equal(found, expected));
}

/// Of `inputs` [batch, time, columns]: the whole sequence, and a piece with the state that enters it.
struct Rule {
    int64_t columns;
    std::function<at::Tensor(const at::Tensor& inputs)> whole;
    std::function<MixedPiece(const at::Tensor& inputs, const at::Tensor& before)> piece;
};

void expect_the_bits_of_the_whole(const Rule& rule) {
    const at::Tensor inputs = test::normal_numbers({batch, length, rule.columns}, 1).to(type()).requires_grad_(true);
    const at::Tensor expected = rule.whole(inputs), weights = test::normal_numbers(expected.sizes(), 2).to(type());
    const at::Tensor d_expected = torch::autograd::grad({expected}, {inputs}, {weights})[0];

    const at::Tensor nothing = at::zeros({batch, heads, head_dim(), head_dim()}, test::on_device(at::kFloat));
    const MixedPiece first = rule.piece(inputs.narrow(1, 0, cut), nothing),
                     second = rule.piece(inputs.narrow(1, cut, length - cut), first.state);
    const at::Tensor found = at::cat({first.mixed, second.mixed}, 1);
    expect_the_bits(found, expected);
    expect_the_bits(torch::autograd::grad({found}, {inputs}, {weights})[0], d_expected);
}

TEST(RulesOfPieces, gated_delta_rule) {
    const int64_t dim = head_dim();
    const GatedDeltaShape shape{heads, dim, true, true, 1e-5};
    const at::Tensor a_log = test::normal_numbers({heads}, 3), dt_bias = test::normal_numbers({heads}, 4) - 2.0,
                     norm = test::normal_numbers({dim}, 5);
    expect_the_bits_of_the_whole(
        {shape.columns(),
         [&](const at::Tensor& x) { return gated_delta_mixing(x, a_log, dt_bias, norm, shape, nullptr); },
         [&](const at::Tensor& x, const at::Tensor& before) {
             return gated_delta_mixing_of_piece(x, a_log, dt_bias, norm, shape, before);
         }});
}

TEST(RulesOfPieces, gated_linear_attention) {
    const int64_t dim = head_dim(), width = heads * dim;
    const LinearAttentionShape shape{heads, dim, true, 1e-5};
    const at::Tensor norm = test::normal_numbers({dim}, 5);
    const auto projected = [&](const at::Tensor& x) { return x.narrow(2, 0, 4 * width); };
    const auto decay = [&](const at::Tensor& x) { return x.narrow(2, 4 * width, width); };
    expect_the_bits_of_the_whole(
        {5 * width,
         [&](const at::Tensor& x) {
             return gated_linear_attention_mixing(projected(x), decay(x), norm, shape, nullptr);
         },
         [&](const at::Tensor& x, const at::Tensor& before) {
             return gated_linear_attention_mixing_of_piece(projected(x), decay(x), norm, shape, before);
         }});
}

TEST(RulesOfPieces, kimi_delta_rule) {
    const int64_t dim = head_dim(), width = heads * dim;
    const KimiDeltaShape shape{heads, dim, true, 0.0};
    const at::Tensor a_log = test::normal_numbers({heads}, 3), dt_bias = test::normal_numbers({width}, 4) - 2.0;
    const auto tokens = [&](const at::Tensor& x) {
        return KimiDeltaTokens{x.narrow(2, 0, 3 * width), x.narrow(2, 3 * width, width), x.narrow(2, 4 * width, heads)};
    };
    expect_the_bits_of_the_whole(
        {4 * width + heads,
         [&](const at::Tensor& x) { return kimi_delta_rule(tokens(x), a_log, dt_bias, shape, nullptr); },
         [&](const at::Tensor& x, const at::Tensor& before) {
             return kimi_delta_rule_of_piece(tokens(x), a_log, dt_bias, shape, before);
         }});
}

}  // namespace
}  // namespace amalgam
