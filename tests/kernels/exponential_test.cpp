// SPDX-License-Identifier: Apache-2.0
// The exponential of kernels/elementwise, in the variant of the instruction set that this file is compiled for.
#include "kernels/elementwise/exponential.h"

#include "matrix.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

float exponential_of(float x) {
    float lane[lanes];
    store(lane, accurate_exponential(broadcast(x)), Whole{});
    return lane[lanes - 1];
}

TEST(Exponential, is_accurate) {
    double worst = 0;
    float worst_at = 0;
    for (double x = -87.3; x <= 88.7; x += 1.7e-5) {
        const auto argument = static_cast<float>(x);
        const double exact = std::exp(static_cast<double>(argument));
        const auto nearest = static_cast<float>(exact);
        const double unit = std::ldexp(1.0, std::ilogb(nearest) - 23);
        const double error = std::abs(exponential_of(argument) - exact) / unit;
        if (error > worst) {
            worst = error;
            worst_at = argument;
        }
    }
    RecordProperty("largest_error_ulp", std::to_string(worst));
    EXPECT_LE(worst, 1.1) << "at " << worst_at;
}

TEST(Exponential, has_exact_limits) {
    EXPECT_EQ(exponential_of(0.0F), 1.0F);
    EXPECT_EQ(exponential_of(-std::numeric_limits<float>::infinity()), 0.0F);
    EXPECT_EQ(exponential_of(-150.0F), 0.0F);
    EXPECT_EQ(exponential_of(std::numeric_limits<float>::infinity()), std::numeric_limits<float>::infinity());
    EXPECT_EQ(exponential_of(89.5F), std::numeric_limits<float>::infinity());
    EXPECT_TRUE(std::isnan(exponential_of(std::numeric_limits<float>::quiet_NaN())));
    EXPECT_LE(exponential_of(-95.0F), 5.6e-42F);
    EXPECT_GE(exponential_of(-95.0F), 0.0F);
}

TEST(Exponential, sigmoid_has_exact_limits) {
    float lane[lanes];
    for (float x : {-std::numeric_limits<float>::infinity(), -200.0F}) {
        store(lane, accurate_sigmoid(broadcast(x)), Whole{});
        EXPECT_EQ(lane[0], 0.0F);
    }
    store(lane, accurate_sigmoid(broadcast(200.0F)), Whole{});
    EXPECT_EQ(lane[0], 1.0F);
}

TEST(Bfloat16, rounds_to_nearest_even_and_keeps_na_n) {
    for (float x : {1.00390625F, 1.01171875F, -3.1415926F, 1e-30F, 3.4e38F, 0.0F, -0.0F}) {
        Bfloat16 stored[lanes];
        store(stored, broadcast(x), Whole{});
        EXPECT_EQ(stored[0].bits, kernels::testing::to_bfloat16(x)) << x;
    }
    Bfloat16 stored[lanes];
    store(stored, broadcast(std::numeric_limits<float>::quiet_NaN()), Whole{});
    EXPECT_TRUE(std::isnan(kernels::testing::from_bfloat16(stored[0].bits)));
}

}  // namespace
}  // namespace amalgam::kernels::AMALGAM_ISA
