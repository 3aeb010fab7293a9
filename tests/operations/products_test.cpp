// SPDX-License-Identifier: Apache-2.0
// Products in bf16, however this CPU computes them, against the same numbers multiplied in fp32: values, gradients, and
// products of several blocks.
#include "operations/products.h"

#include <ATen/core/grad_mode.h>

#include "gradient_check.h"
#include "operations/few_rows_map.h"
#include "operations/fused_maps.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

using test::differentiate;
using test::Inputs;
using test::normal_numbers;
using test::relative_error;

constexpr double rounding = 6e-3;  // of bf16, whose unit is 2^-8

/// Numbers that bf16 has, so that only the result is rounded.
at::Tensor coarse_numbers(at::IntArrayRef sizes, uint64_t seed) {
    return normal_numbers(sizes, seed).to(at::kBFloat16).to(at::kFloat);
}

void expect_fp32_gradients(const std::function<at::Tensor(const Inputs&)>& operation, const Inputs& inputs) {
    const auto found = differentiate(operation, inputs, at::kBFloat16),
               expected = differentiate(operation, inputs, at::kFloat);
    EXPECT_EQ(found.value.scalar_type(), at::kBFloat16);
    EXPECT_LT(relative_error(found.value, expected.value), rounding);
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
        EXPECT_EQ(found.gradients[i].sizes(), expected.gradients[i].sizes()) << "input " << i;
        EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), rounding) << "gradient of input " << i;
    }
}

TEST(Products, projections_in_bf16_agree_with_fp32) {
    const auto with_bias = [](const Inputs& in) { return linear_map(in[0], in[1], in[2]); };
    const auto without = [](const Inputs& in) { return linear_map(in[0], in[1]); };
    expect_fp32_gradients(with_bias,
                          {coarse_numbers({2, 7, 24}, 1), coarse_numbers({40, 24}, 2), coarse_numbers({40}, 3)});
    expect_fp32_gradients(without, {coarse_numbers({2, 70, 24}, 1), coarse_numbers({9, 24}, 2)});
    expect_fp32_gradients(without, {coarse_numbers({5, 24}, 1), coarse_numbers({1, 24}, 2)});
}

/// LibTorch multiplies, but in steps of generation the kernel that reads weights once.
TEST(Products, of_few_rows_at_a_time_agree_with_others) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
        const at::Tensor weight = coarse_numbers({40, 24}, 2).to(type), bias = coarse_numbers({40}, 3).to(type);
        // A slice of wider rows, a batch of which every row stands apart, and more rows than are few.
        const at::Tensor wide = coarse_numbers({70, 50}, 1).to(type);
        for (const at::Tensor& x :
             {wide.narrow(0, 0, 5).narrow(1, 3, 24),
              wide.narrow(0, 0, 12).narrow(1, 0, 24).view({2, 6, 24}).transpose(0, 1), wide.narrow(1, 3, 24)})
            for (const at::Tensor& added : {at::Tensor(), bias}) {
                const at::Tensor expected =
                    at::linear(x.to(at::kFloat), weight.to(at::kFloat), added.defined() ? added.to(at::kFloat) : added);
                const at::NoGradGuard no_grad;
                if (!is_widened(x)) {
                    EXPECT_TRUE(at::equal(linear_map(x, weight, added), at::linear(x, weight, added)));
                }
                const FewRowsAtATime few_rows;
                const at::Tensor found = linear_map(x, weight, added);
                EXPECT_EQ(found.scalar_type(), type);
                EXPECT_LT(relative_error(found.to(at::kFloat), expected), type == at::kFloat ? 1e-6 : rounding);
            }
    }
}

/// In steps of generation on GPUs one kernel, whose rounding is another; of 17 rows and of 24 channels everywhere the
/// operations one after another.
TEST(Products, of_few_rows_take_in_what_stands_around_them) {
    const at::NoGradGuard no_grad;
    for (const auto type : {at::kFloat, at::kBFloat16})
        for (const auto& [rows, in] : {std::pair<int64_t, int64_t>{5, 128}, {16, 64}, {17, 64}, {3, 24}}) {
            const at::Tensor x = coarse_numbers({rows, 1, in}, 1), weight = coarse_numbers({48, in}, 2),
                             bias = coarse_numbers({48}, 3), residual = coarse_numbers({rows, 1, 48}, 4),
                             norm = normal_numbers({in}, 5) + 2.0;
            const auto narrow = [&](const at::Tensor& t) { return t.to(type); };
            const Normed normed{narrow(x), norm, 1e-5};
            const at::Tensor map = at::linear(rms_norm(x, norm, 1e-5), weight, bias),
                             sum = residual + at::linear(x, weight);
            const auto expect_same = [&] {
                const double bound = type == at::kFloat ? 1e-6 : rounding;
                EXPECT_LT(relative_error(linear_map(normed, narrow(weight), narrow(bias)).to(at::kFloat), map), bound);
                EXPECT_LT(relative_error(swiglu_map(normed, narrow(weight), narrow(bias)).to(at::kFloat), swiglu(map)),
                          2 * bound);
                const Sum added = add_linear_map(narrow(residual), narrow(x), narrow(weight));
                EXPECT_LT(relative_error(added.value().to(at::kFloat), sum), bound);
                return added.addend.defined();
            };
            EXPECT_TRUE(expect_same());
            const FewRowsAtATime few_rows;
            const bool one_kernel = x.is_cuda() && type == at::kBFloat16 && rows <= 16 && in % 64 == 0;
            EXPECT_EQ(expect_same(), !one_kernel) << rows << " rows of " << in;
        }
}

TEST(Products, of_several_blocks_agree_with_fp32) {
    // 4 M numbers of a block are less than 9000 times 600.
    struct Sizes {
        int64_t rows, inner, columns;
    };
    for (const auto& [rows, inner, columns] : {Sizes{9000, 300, 300}, Sizes{300, 300, 9000}, Sizes{300, 9000, 300}}) {
        const at::Tensor a = coarse_numbers({rows, inner}, 1), b = coarse_numbers({inner, columns}, 2);
        at::Tensor expected = at::mm(a, b), found = at::empty({rows, columns}, a.options().dtype(at::kBFloat16));
        multiply_into(found, a.to(at::kBFloat16), b.to(at::kBFloat16));
        EXPECT_LT(relative_error(found.to(at::kFloat), expected), rounding) << rows << " x " << columns;
        // The comparison sees a block that is missing.
        found.narrow(1, columns - 20, 20).zero_();
        EXPECT_GT(relative_error(found.to(at::kFloat), expected), rounding) << rows << " x " << columns;
    }
}

TEST(Products, are_added_to_a_wider_sum) {
    const at::Tensor a = coarse_numbers({30, 20}, 1), b = coarse_numbers({20, 50}, 2),
                     before = normal_numbers({30, 50}, 3);
    at::Tensor sum = before.clone();
    multiply_into(sum, a.to(at::kBFloat16), b.to(at::kBFloat16), /*add=*/true);
    EXPECT_LT(relative_error(sum, before + at::mm(a, b)), rounding);
    EXPECT_GT(relative_error(sum, at::mm(a, b)), rounding);
}

TEST(Products, attention_in_bf16_agrees_with_fp32) {
    const Inputs qkv = {coarse_numbers({2, 4, 33, 16}, 1), coarse_numbers({2, 2, 33, 16}, 2),
                        coarse_numbers({2, 2, 33, 16}, 3)};
    expect_fp32_gradients([](const Inputs& in) { return causal_attention(in[0], in[1], in[2]); }, qkv);
    const Inputs equal_heads = {qkv[0], coarse_numbers({2, 4, 33, 16}, 4), coarse_numbers({2, 4, 33, 16}, 5)};
    const at::Tensor mask = at::ones({33, 33}, qkv[0].options().dtype(at::kBool)).tril().triu(-8);
    expect_fp32_gradients([&](const Inputs& in) { return masked_attention(in[0], in[1], in[2], mask); }, equal_heads);
}

}  // namespace
}  // namespace amalgam
