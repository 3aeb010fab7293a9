// SPDX-License-Identifier: Apache-2.0
#include "optimizer/update_guard.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "../model/small_model.h"
#include "objectives/objective.h"
#include "optimizer/adamw.h"
#include "optimizer/gradients.h"

namespace amalgam {
namespace {

constexpr double nan_value = std::numeric_limits<double>::quiet_NaN();

/// Losses around 2 with a standard deviation of 0.1.
double ordinary(int64_t step) {
    return step % 2 == 0 ? 1.9 : 2.1;
}

TEST(UpdateGuarding, lets_ordinary_steps_through) {
    UpdateGuard guard(3.0, 0);
    for (int64_t step = 0; step < 300; ++step) EXPECT_EQ(guard.objection(ordinary(step), 1.0), "") << step;
    EXPECT_EQ(guard.skipped(), 0);
    EXPECT_EQ(guard.verdict(), "");
}

TEST(UpdateGuarding, objects_to_what_is_not_finite) {
    UpdateGuard guard(0.0, 100);
    const double infinity = std::numeric_limits<double>::infinity();
    EXPECT_NE(guard.objection(nan_value, 1.0), "");
    EXPECT_NE(guard.objection(1.0, nan_value), "");
    EXPECT_NE(guard.objection(infinity, 1.0), "");
    EXPECT_NE(guard.objection(1.0, infinity), "");
    EXPECT_EQ(guard.objection(1.0, 1.0), "");
    EXPECT_EQ(guard.skipped(), 4);
}

TEST(UpdateGuarding, objects_to_spikes_if_asked) {
    UpdateGuard guard(6.0, 100), off(0.0, 100);
    for (int64_t step = 0; step < 40; ++step) {
        EXPECT_EQ(guard.objection(ordinary(step), 1.0), "");
        EXPECT_EQ(off.objection(ordinary(step), 1.0), "");
    }
    EXPECT_EQ(guard.objection(2.5, 1.0), "") << "5 standard deviations above the mean";
    EXPECT_NE(guard.objection(4.0, 1.0).find("spike"), std::string::npos);
    EXPECT_EQ(guard.objection(0.1, 1.0), "") << "low losses are welcome";
    EXPECT_EQ(guard.skipped(), 1);
    EXPECT_EQ(off.objection(4.0, 1.0), "");
}

TEST(UpdateGuarding, the_first_losses_are_no_spikes) {
    UpdateGuard guard(3.0, 100);
    for (const double loss : {1.0, 1.1, 50.0}) EXPECT_EQ(guard.objection(loss, 1.0), "");
}

TEST(UpdateGuarding, losses_of_another_kind_are_no_spikes) {
    UpdateGuard guard(6.0, 100);
    for (int64_t step = 0; step < 40; ++step) EXPECT_EQ(guard.objection(ordinary(step), 1.0), "");
    guard.forget_losses();
    for (int64_t step = 0; step < 40; ++step) EXPECT_EQ(guard.objection(4.0 + ordinary(step), 1.0), "");
    EXPECT_NE(guard.objection(9.0, 1.0), "");
}

TEST(UpdateGuarding, gets_used_to_a_new_level) {
    UpdateGuard guard(3.0, 1000);
    for (int64_t step = 0; step < 200; ++step) guard.objection(ordinary(step), 1.0);
    for (int64_t step = 0; step < 128; ++step) guard.objection(ordinary(step) + 5.0, 1.0);
    EXPECT_EQ(guard.objection(ordinary(0) + 5.0, 1.0), "");
}

TEST(UpdateGuarding, ends_the_training_after_ten_bad_steps_in_a_row) {
    UpdateGuard guard(0.0, 1000);
    for (int64_t step = 0; step < 9; ++step) guard.objection(nan_value, 1.0);
    EXPECT_EQ(guard.verdict(), "");
    guard.objection(1.0, 1.0);
    for (int64_t step = 0; step < 10; ++step) guard.objection(nan_value, 1.0);
    EXPECT_NE(guard.verdict().find("10 steps in a row"), std::string::npos);
}

TEST(UpdateGuarding, ends_the_training_after_too_many_in_total) {
    UpdateGuard guard(0.0, 2);
    for (int64_t step = 0; step < 2; ++step) {
        guard.objection(nan_value, 1.0);
        guard.objection(1.0, 1.0);
    }
    EXPECT_EQ(guard.verdict(), "");
    guard.objection(nan_value, 1.0);
    EXPECT_NE(guard.verdict().find("max_skipped_updates is 2"), std::string::npos);
}

/// The limit of a long training never binds in a short one.
TEST(UpdateGuarding, ends_a_training_most_of_whose_updates_were_skipped) {
    for (const int64_t steps : {1, 2, 6, 7}) {
        UpdateGuard guard(0.0, 100, steps);
        for (int64_t skipped = 0; skipped < steps / 2; ++skipped) {
            guard.objection(nan_value, 1.0);
            EXPECT_EQ(guard.verdict(), "") << steps;
        }
        guard.objection(nan_value, 1.0);
        EXPECT_NE(guard.verdict().find("more than half"), std::string::npos) << steps;
    }
}

TEST(UpdateGuarding, goes_on_from_its_state_as_if_nothing_had_happened) {
    UpdateGuard first(6.0, 100), second(6.0, 100), forgetful(6.0, 100);
    for (int64_t step = 0; step < 150; ++step) first.objection(ordinary(step) + 1e-3 * double(step % 7), 1.0);
    first.objection(nan_value, 1.0);
    second.resume(first.state());
    EXPECT_EQ(second.state(), first.state());
    EXPECT_EQ(second.skipped(), 1);
    EXPECT_EQ(second.objection(4.0, 1.0), first.objection(4.0, 1.0));
    EXPECT_EQ(second.skipped(), 2);
    EXPECT_EQ(forgetful.objection(4.0, 1.0), "") << "without the losses before it, it is no spike";
}

/// The negative control of all tests that see weights unchanged: without the guard one NaN spoils them.
TEST(UpdateGuarding, an_update_with_a_bad_gradient_would_change_weights) {
    const auto student =
        test::small_model({test::small_config("llama"), all_linear(3, test::linear_mixer), {}}, 1, true);
    Parameter& parameter = *all_parameters(*student).front();
    Gradients gradients({&parameter}, test::device(), false);
    AdamW optimizer({&parameter}, {.learning_rate = 1e-3, .learning_rate_rest = 1e-3});
    gradients.of(parameter).fill_(NAN);
    optimizer.step(gradients, 1.0, 1.0, 1);
    EXPECT_FALSE(parameter.master.isfinite().all().item<bool>());
}

}  // namespace
}  // namespace amalgam
