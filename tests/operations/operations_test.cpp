// SPDX-License-Identifier: Apache-2.0
// Every operation by the CPU kernels in fp32 against the same formula in fp64, values and gradients; and that formula
// against one written here.
#include "operations/operations.h"

#include "gradient_check.h"

namespace amalgam {
namespace {

using test::expect_fp64_gradients;
using test::Inputs;
using test::normal_numbers;

constexpr double tolerance = 1e-6;

TEST(Operations, rms_norm) {
    const auto norm = [](const Inputs& in) { return rms_norm(in[0], in[1], 1e-5); };
    const at::Tensor weight = 1.0 + 0.3 * normal_numbers({24}, 2);
    expect_fp64_gradients(norm, {normal_numbers({2, 7, 24}, 1), weight}, tolerance);
    expect_fp64_gradients(norm, {normal_numbers({5, 24}, 1), weight}, tolerance);
    expect_fp64_gradients(norm, {normal_numbers({2, 7, 3, 24}, 1), weight}, tolerance);  // per head

    const at::Tensor x = normal_numbers({2, 7, 24}, 1);
    const at::Tensor expected = x / at::sqrt(x.square().mean(-1, true) + 1e-5) * weight;
    EXPECT_LT(test::relative_error(rms_norm(x, weight, 1e-5), expected), tolerance);
}

/// Heads inside the rows of a fused projection: a view with gaps between its tokens.
TEST(Operations, rms_norm_of_a_view) {
    const at::Tensor weight = 1.0 + 0.3 * normal_numbers({8}, 2);
    expect_fp64_gradients(
        [](const Inputs& in) {
            return rms_norm(in[0].narrow(-1, 16, 24).unflatten(-1, {3, 8}), in[1], 1e-6);
        },
        {normal_numbers({2, 5, 56}, 1), weight}, tolerance);
}

TEST(Operations, rms_norm_of_another_order_of_dimensions) {
    expect_fp64_gradients([](const Inputs& in) { return rms_norm(in[0].transpose(0, 1), in[1], 1e-6); },
                          {normal_numbers({4, 6, 8}, 1), normal_numbers({8}, 2)}, tolerance);
}

TEST(Operations, swiglu) {
    const auto operation = [](const Inputs& in) { return swiglu(in[0]); };
    expect_fp64_gradients(operation, {normal_numbers({2, 7, 48}, 1)}, tolerance);
    expect_fp64_gradients(operation, {normal_numbers({3, 10}, 1)}, tolerance);
    const at::Tensor fused = normal_numbers({6, 20}, 1), gate = fused.narrow(1, 0, 10), up = fused.narrow(1, 10, 10);
    EXPECT_LT(test::relative_error(swiglu(fused), gate / (1.0 + (-gate).exp()) * up), tolerance);
}

TEST(Operations, rotate) {
    const RotaryTables tables = rotary_tables({}, 8, 3, 7, test::device());
    expect_fp64_gradients([&](const Inputs& in) { return rotate(in[0], tables); }, {normal_numbers({2, 7, 3, 8}, 1)},
                          tolerance);
    expect_fp64_gradients(
        [&](const Inputs& in) {
            return rotate(in[0].narrow(-1, 8, 24).unflatten(-1, {3, 8}), tables);
        },
        {normal_numbers({2, 7, 40}, 1)}, tolerance);
}

/// Channel i and i + dim/2 turn together as one complex number.
TEST(Operations, rotate_turns_pairs_of_channels) {
    const at::Tensor x = normal_numbers({1, 5, 2, 8}, 1), y = rotate(x, rotary_tables({}, 8, 11, 5, test::device()));
    for (int64_t t = 0; t < 5; ++t)
        for (int64_t i = 0; i < 4; ++i) {
            const double angle = double(11 + t) * std::pow(10000.0, -double(i) / 4.0);
            const double re = x[0][t][1][i].item<double>(), im = x[0][t][1][i + 4].item<double>();
            EXPECT_NEAR(y[0][t][1][i].item<double>(), re * std::cos(angle) - im * std::sin(angle), 1e-6);
            EXPECT_NEAR(y[0][t][1][i + 4].item<double>(), re * std::sin(angle) + im * std::cos(angle), 1e-6);
        }
}

TEST(Operations, gated_rms_norm) {
    const at::Tensor o = normal_numbers({2, 7, 3, 8}, 1), gate = normal_numbers({2, 7, 24}, 2),
                     weight = 1.0 + 0.3 * normal_numbers({8}, 3), none;
    const auto operation = [](const Inputs& in) { return gated_rms_norm(in[0], in[1], in[2], 1e-5); };
    expect_fp64_gradients(operation, {o, gate, weight}, tolerance);
    expect_fp64_gradients(operation, {o, none, weight}, tolerance);
    expect_fp64_gradients(operation, {o, gate, none}, tolerance);
    EXPECT_TRUE(at::equal(gated_rms_norm(o, none, none, 1e-5), o.flatten(-2)));

    const at::Tensor normed = (o / at::sqrt(o.square().mean(-1, true) + 1e-5) * weight).flatten(-2);
    EXPECT_LT(test::relative_error(gated_rms_norm(o, gate, weight, 1e-5), normed * gate / (1.0 + (-gate).exp())),
              tolerance);
}

TEST(Operations, short_convolution) {
    const at::Tensor x = normal_numbers({2, 9, 12}, 1), weight = normal_numbers({12, 4}, 2);
    const at::Tensor with_others = at::cat({x, normal_numbers({2, 9, 7}, 3)}, 2);
    for (const bool activation : {false, true})
        for (const at::Tensor& input : {x, with_others})
            expect_fp64_gradients(
                [&](const Inputs& in) { return short_convolution(in[0], in[1], activation, nullptr); }, {input, weight},
                tolerance);
    const at::Tensor y = short_convolution(x, weight, false, nullptr);
    for (int64_t t = 0; t < 9; ++t)
        for (int64_t c = 0; c < 12; ++c) {
            double sum = 0.0;
            for (int64_t tap = 0; tap < 4; ++tap)
                if (t - 3 + tap >= 0) sum += weight[c][tap].item<double>() * x[1][t - 3 + tap][c].item<double>();
            EXPECT_NEAR(y[1][t][c].item<double>(), sum, 1e-5) << "time " << t << " channel " << c;
        }
    const at::Tensor beside = short_convolution(with_others, weight, false, nullptr);
    EXPECT_TRUE(at::equal(beside.narrow(2, 0, 12), y));
    EXPECT_TRUE(at::equal(beside.narrow(2, 12, 7), with_others.narrow(2, 12, 7)));
}

TEST(Operations, short_convolution_continues) {
    const at::Tensor x = normal_numbers({2, 9, 15}, 1), weight = normal_numbers({12, 4}, 2);
    const at::Tensor whole = short_convolution(x, weight, true, nullptr);
    for (const int64_t split : {1, 2, 4, 8}) {
        at::Tensor recent;
        const at::Tensor first = short_convolution(x.narrow(1, 0, split), weight, true, &recent),
                         second = short_convolution(x.narrow(1, split, 9 - split), weight, true, &recent);
        EXPECT_LT(test::relative_error(at::cat({first, second}, 1), whole), tolerance) << "split at " << split;
    }
}

TEST(Operations, causal_attention_of_grouped_heads) {
    const at::Tensor q = normal_numbers({2, 4, 11, 8}, 1), k = normal_numbers({2, 2, 11, 8}, 2),
                     v = normal_numbers({2, 2, 11, 8}, 3);
    const auto naive = [](const Inputs& in) {
        const at::Tensor keys = in[1].repeat_interleave(2, 1), values = in[2].repeat_interleave(2, 1);
        const at::Tensor later = at::ones({11, 11}, test::on_device(at::kBool)).triu(1);
        const at::Tensor scores = at::matmul(in[0], keys.transpose(-1, -2)) / std::sqrt(8.0);
        return at::matmul(at::softmax(scores.masked_fill(later, -INFINITY), -1), values);
    };
    const auto found = test::differentiate([](const Inputs& in) { return causal_attention(in[0], in[1], in[2]); },
                                           {q, k, v}, at::kFloat);
    const auto expected = test::differentiate(naive, {q, k, v}, at::kDouble);
    EXPECT_LT(test::relative_error(found.value, expected.value), tolerance);
    for (size_t i = 0; i < 3; ++i)
        EXPECT_LT(test::relative_error(found.gradients[i], expected.gradients[i]), tolerance) << "input " << i;
}

}  // namespace
}  // namespace amalgam
