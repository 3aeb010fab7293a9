// SPDX-License-Identifier: Apache-2.0
// Frequencies of every scaling against numbers worked out apart from this code, from the published formulas in fp64
// (transformers gives the same to its fp32 precision).
#include "operations/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

namespace amalgam {
namespace {

void expect_frequencies(const RopeConfig& rope, int64_t head_dim, int64_t length, const std::vector<double>& expected,
                        double expected_scale = 1.0) {
    double scale = 0.0;
    const auto found = inverse_frequencies(rope, head_dim, length, scale);
    ASSERT_EQ(found.size(), expected.size());
    for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(found[i] / expected[i], 1.0, 1e-9) << "frequency " << i;
    EXPECT_NEAR(scale, expected_scale, 1e-8);
}

RopeConfig yarn(double theta, double factor, int64_t original) {
    RopeConfig rope;
    rope.rope_type = "yarn";
    rope.rope_theta = theta;
    rope.factor = factor;
    rope.original_max_position_embeddings = original;
    return rope;
}

TEST(Rope, default_frequencies) {
    expect_frequencies({}, 8, 100, {1.0, 0.1, 0.01, 0.001});
}

TEST(Rope, linear_scaling_divides) {
    RopeConfig rope;
    rope.rope_type = "linear";
    rope.factor = 4.0;
    expect_frequencies(rope, 8, 100, {0.25, 0.025, 0.0025, 0.00025});
}

TEST(Rope, dynamic_scaling_begins_beyond_the_original_context) {
    RopeConfig rope;
    rope.rope_type = "dynamic";
    rope.factor = 2.0;
    rope.original_max_position_embeddings = 2048;
    expect_frequencies(rope, 8, 2048, {1.0, 0.1, 0.01, 0.001});
    // stretch = 2 * 8192 / 2048 - 1 = 7; theta grows by 7^(8/6), so frequency i shrinks by 7^(-i/3)
    expect_frequencies(rope, 8, 8192, {1.0, 0.1 / std::cbrt(7.0), 0.01 / std::cbrt(49.0), 0.001 / 7.0});
}

TEST(Rope, llama3_keeps_short_blends_middle_stretches_long_waves) {
    RopeConfig rope;
    rope.rope_type = "llama3";
    rope.rope_theta = 500000.0;
    rope.factor = 8.0;
    rope.low_freq_factor = 1.0;
    rope.high_freq_factor = 4.0;
    rope.original_max_position_embeddings = 8192;
    expect_frequencies(rope, 16, 100,
                       {1.0, 0.193922744749, 0.0376060309309, 0.00729266473722, 0.000524846160993, 3.42810219595e-05,
                        6.64786987118e-06, 1.28917317215e-06});
}

TEST(Rope, yarn) {
    expect_frequencies(yarn(1e6, 4.0, 32768), 16, 100,
                       {1.0, 0.177827941004, 0.0316227766017, 0.00421755993893, 0.0005, 4.4456985251e-05,
                        7.90569415042e-06, 1.40585331298e-06},
                       0.1 * std::log(4.0) + 1.0);
}

TEST(Rope, yarn_without_truncation) {
    RopeConfig rope = yarn(1e6, 4.0, 32768);
    rope.truncate = false;
    expect_frequencies(rope, 16, 100,
                       {1.0, 0.177827941004, 0.0316227766017, 0.00551727047513, 0.00060740793788, 4.4456985251e-05,
                        7.90569415042e-06, 1.40585331298e-06},
                       0.1 * std::log(4.0) + 1.0);
}

TEST(Rope, yarn_scale_from_mscale_or_as_given) {
    const std::vector<double> frequencies = {1.0,      0.316227766017,   0.1,     0.023914724805,
                                             0.005125, 0.00084986212117, 2.5e-05, 7.90569415042e-06};
    RopeConfig rope = yarn(1e4, 40.0, 4096);
    rope.mscale = 1.0;
    rope.mscale_all_dim = 0.707;
    expect_frequencies(rope, 16, 100, frequencies, (0.1 * std::log(40.0) + 1.0) / (0.1 * 0.707 * std::log(40.0) + 1.0));
    rope.attention_factor = 0.9;
    expect_frequencies(rope, 16, 100, frequencies, 0.9);
}

TEST(Rope, tables_hold_scaled_cosines_of_both_halves) {
    RopeConfig rope = yarn(1e4, 40.0, 4096);
    rope.attention_factor = 0.9;
    double scale = 0.0;
    const auto frequencies = inverse_frequencies(rope, 8, 20, scale);
    const RotaryTables tables = rotary_tables(rope, 8, 17, 3, at::kCPU);
    ASSERT_EQ(tables.cos.sizes(), (std::vector<int64_t>{3, 8}));
    ASSERT_EQ(tables.sin.sizes(), (std::vector<int64_t>{3, 8}));
    for (int64_t t = 0; t < 3; ++t)
        for (int64_t i = 0; i < 8; ++i) {
            const double angle = double(17 + t) * frequencies[size_t(i % 4)];
            EXPECT_FLOAT_EQ(tables.cos[t][i].item<float>(), float(0.9 * std::cos(angle)));
            EXPECT_FLOAT_EQ(tables.sin[t][i].item<float>(), float(0.9 * std::sin(angle)));
        }
}

TEST(Rope, tables_continue_at_any_position) {
    const RotaryTables whole = rotary_tables({}, 8, 0, 50, at::kCPU), part = rotary_tables({}, 8, 30, 20, at::kCPU);
    EXPECT_TRUE(at::equal(whole.cos.narrow(0, 30, 20), part.cos));
    EXPECT_TRUE(at::equal(whole.sin.narrow(0, 30, 20), part.sin));
}

}  // namespace
}  // namespace amalgam
