// SPDX-License-Identifier: Apache-2.0
#include "kernels/adamw/adamw.h"

#include "matrix.h"

namespace amalgam::kernels::testing {
namespace {

struct State {
    std::vector<float> master, exp_avg, exp_avg_sq;
    std::vector<std::uint16_t> copy;

    bool operator==(const State&) const = default;
};

State three_steps(AdamwStep settings, const std::vector<float>& start, const std::vector<float>& gradient,
                  int threads) {
    State state{start, std::vector<float>(start.size()), std::vector<float>(start.size()),
                std::vector<std::uint16_t>(start.size())};
    settings.count = static_cast<std::int64_t>(start.size());
    settings.gradient = gradient.data();
    settings.master = state.master.data();
    settings.exp_avg = state.exp_avg.data();
    settings.exp_avg_sq = state.exp_avg_sq.data();
    settings.bfloat16_copy = state.copy.data();
    for (settings.step = 1; settings.step <= 3; ++settings.step) adamw_step(settings, threads);
    return state;
}

const AdamwStep settings{.learning_rate = 0.01, .weight_decay = 0.1, .gradient_multiplier = 0.5};

TEST(Adamw, agrees_with_the_reference_for_any_number_of_threads) {
    for (std::int64_t count : {1, 7, 63, 576, 100003}) {
        const auto values = random_values(count, 1), gradients = random_values(count, 2);
        const std::vector<float> start(values.begin(), values.end()), gradient(gradients.begin(), gradients.end());
        const State one = three_steps(settings, start, gradient, 1), two = three_steps(settings, start, gradient, 2);
        EXPECT_TRUE(one == two);

        std::vector<double> master(start.begin(), start.end()), exp_avg(count), exp_avg_sq(count);
        const std::vector<double> g(gradient.begin(), gradient.end());
        AdamwStep step = settings;
        for (step.step = 1; step.step <= 3; ++step.step) {
            reference::adamw_step(step, count, g.data(), master.data(), exp_avg.data(), exp_avg_sq.data());
        }
        expect_close(one.master, master, ElementType::float32, 1e-6, 1);
        expect_close(one.exp_avg, exp_avg, ElementType::float32, 1e-6);
        expect_close(one.exp_avg_sq, exp_avg_sq, ElementType::float32, 1e-6);
        for (std::int64_t i = 0; i < count; ++i) ASSERT_EQ(one.copy[i], to_bfloat16(one.master[i]));
    }
}

// Computed with torch.optim.AdamW 2.11 in float64: lr 0.01, betas (0.9, 0.95), eps 1e-8, weight_decay 0.1, three steps
// from p = [0.5, -1.25, 2, 0] with gradients [0.1 k, -0.2, 0.3 / k, 0] at step k.
TEST(Adamw, reference_agrees_with_torch) {
    std::vector<double> master = {0.5, -1.25, 2, 0}, exp_avg(4), exp_avg_sq(4);
    AdamwStep step{.learning_rate = 0.01, .weight_decay = 0.1};
    for (step.step = 1; step.step <= 3; ++step.step) {
        const auto k = static_cast<double>(step.step);
        const std::vector<double> gradient = {0.1 * k, -0.2, 0.3 / k, 0};
        reference::adamw_step(step, 4, gradient.data(), master.data(), exp_avg.data(), exp_avg_sq.data());
    }
    const std::vector<double> torch_master = {0.4695061141906267, -1.2162837402485007, 1.9657647152032796, 0};
    const std::vector<double> torch_exp_avg = {0.0561, -0.0542, 0.0478, 0};
    const std::vector<double> torch_exp_avg_sq = {0.00685125, 0.005705, 0.00563, 0};
    for (int i = 0; i < 4; ++i) {
        EXPECT_NEAR(master[i], torch_master[i], 1e-14);
        EXPECT_NEAR(exp_avg[i], torch_exp_avg[i], 1e-14);
        EXPECT_NEAR(exp_avg_sq[i], torch_exp_avg_sq[i], 1e-14);
    }
}

TEST(Adamw, na_n_propagates_and_the_copy_is_optional) {
    std::vector<float> master = {1, 2}, exp_avg(2), exp_avg_sq(2);
    const std::vector<float> gradient = {std::numeric_limits<float>::quiet_NaN(), 1};
    AdamwStep step = settings;
    step.count = 2;
    step.gradient = gradient.data();
    step.master = master.data();
    step.exp_avg = exp_avg.data();
    step.exp_avg_sq = exp_avg_sq.data();
    adamw_step(step, 1);
    EXPECT_TRUE(std::isnan(master[0]));
    EXPECT_TRUE(std::isfinite(master[1]));
    step.step = 0;
    EXPECT_THROW(adamw_step(step, 1), std::invalid_argument);
}

TEST(SumOfSquares, is_exact_to_double_precision_for_any_number_of_threads) {
    for (std::int64_t count : {0, 1, 7, 63, 576, 16384, 100003}) {
        const auto values = random_values(count, 1);
        const std::vector<float> floats(values.begin(), values.end());
        double expected = 0;
        for (float value : floats) expected += static_cast<double>(value) * value;
        EXPECT_NEAR(sum_of_squares(floats.data(), count, 1), expected, 1e-12 * expected);
        EXPECT_EQ(sum_of_squares(floats.data(), count, 1), sum_of_squares(floats.data(), count, 2));
    }
}

TEST(SumOfSquares, na_n_propagates_and_large_values_do_not_overflow) {
    std::vector<float> values(40000, 1e30F);
    EXPECT_NEAR(sum_of_squares(values.data(), 40000, 2), 4e64, 1e58);
    values[12345] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_TRUE(std::isnan(sum_of_squares(values.data(), 40000, 2)));
}

}  // namespace
}  // namespace amalgam::kernels::testing
