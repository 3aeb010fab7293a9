// SPDX-License-Identifier: Apache-2.0
#include "selection/early_exit.h"

#include <gtest/gtest.h>

#include "evaluation/statistics.h"

namespace amalgam {
namespace {

/// Sequences and questions differ from each other by far more than two models do.
class EarlyExit : public testing::Test {
  protected:
    EarlyExit() {
        for (size_t i = 0; i < 16; ++i) best["kl"].push_back(double(i % 5)), best["recall_kl"].push_back(double(i % 7));
        so_far.samples = best;
        so_far.sequences.assign(16, false);
        so_far.questions.assign(16, false);
        measured(8, 8);
    }

    void measured(size_t sequences, size_t questions) {
        for (size_t i = 0; i < 16; ++i) {
            so_far.sequences[i] = i < sequences;
            so_far.questions[i] = i < questions;
        }
    }

    /// By `more` on average, give or take `around`.
    void add(const char* name, double more, double around) {
        for (size_t i = 0; i < 16; ++i) so_far.samples[name][i] += more + (i % 2 == 0 ? around : -around);
    }

    bool is_worse(double errors, double recall_weight = 1.0) const {
        return is_surely_worse(so_far, best, {.recall = recall_weight}, errors);
    }

    ProbeSamples best;
    ProbeProgress so_far;
};

TEST_F(EarlyExit, comes_when_the_paired_difference_is_beyond_its_error) {
    add("kl", 0.1, 0.05);  // a standard error of 0.05 * sqrt(8 / 7) / sqrt(8) = 0.019
    EXPECT_TRUE(is_worse(5.0));
    EXPECT_FALSE(is_worse(5.5));
}

TEST_F(EarlyExit, does_not_come_to_what_is_better_or_the_same) {
    EXPECT_FALSE(is_worse(0.0));
    add("kl", -0.1, 0.0);
    EXPECT_FALSE(is_worse(0.0));
}

TEST_F(EarlyExit, weighs_answers_as_the_score_does) {
    add("kl", 0.1, 0.0);
    add("recall_kl", -0.2, 0.0);
    EXPECT_FALSE(is_worse(3.0, 1.0));
    EXPECT_TRUE(is_worse(3.0, 0.25));
}

TEST_F(EarlyExit, weighs_far_context) {
    best["far_kl"] = so_far.samples["far_kl"] = std::vector<double>(16, 1.0);
    add("kl", 0.1, 0.0);
    add("far_kl", -1.0, 0.0);
    EXPECT_TRUE(is_surely_worse(so_far, best, {.recall = 1.0, .far = 0.05}, 3.0));
    EXPECT_FALSE(is_surely_worse(so_far, best, {.recall = 1.0, .far = 0.2}, 3.0));
}

TEST_F(EarlyExit, needs_enough_of_both) {
    add("kl", 1.0, 0.0);
    EXPECT_TRUE(is_worse(3.0));
    measured(7, 8);
    EXPECT_FALSE(is_worse(3.0));
    measured(8, 7);
    EXPECT_FALSE(is_worse(3.0));
    so_far.questions.clear();
    EXPECT_TRUE(is_worse(3.0)) << "nothing was asked";
}

TEST_F(EarlyExit, fills_in_the_difference_to_the_best) {
    add("kl", 0.5, 0.25);
    for (size_t i = 8; i < 16; ++i) so_far.samples["kl"][i] = 0.0;
    fill_in(so_far, best);
    EXPECT_NEAR(mean_and_error(so_far.samples["kl"]).mean, mean_and_error(best["kl"]).mean + 0.5, 1e-12);
    EXPECT_DOUBLE_EQ(so_far.samples["kl"][0], best["kl"][0] + 0.75) << "what was measured stays";
    EXPECT_DOUBLE_EQ(so_far.samples["kl"][9], best["kl"][9] + 0.5);
    EXPECT_EQ(so_far.samples["recall_kl"], best["recall_kl"]);
}

}  // namespace
}  // namespace amalgam
