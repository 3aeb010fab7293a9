// SPDX-License-Identifier: Apache-2.0
#include "rules/candidate.h"

#include <gtest/gtest.h>

#include <limits>

namespace amalgam {
namespace {

constexpr const char* linear = "gated_delta_net";

Candidate keeping(const std::vector<int64_t>& layers) {
    return {keep_softmax(6, linear, layers), {}};
}

TEST(Candidates, are_named_by_the_layer_that_they_restore) {
    EXPECT_EQ(restored_layer(keeping({4})), 4);
    EXPECT_EQ(restored_layer(keeping({})), std::nullopt);
    EXPECT_EQ(restored_layer(keeping({1, 4})), std::nullopt);
    EXPECT_EQ(describe(keeping({4})), "layer 4");
    EXPECT_EQ(in_column(keeping({4})), "layer   4");
    EXPECT_EQ(describe(keeping({1, 4})), "gated_delta_net x 4, softmax at {1, 4}");
    Candidate slower = keeping({4});
    slower.numbers["learning_rate"] = 0.001;
    EXPECT_EQ(describe(slower), "layer 4, learning_rate 0.001");
    EXPECT_NE(slower, keeping({4}));
}

TEST(Candidates, are_named_by_the_layer_that_they_remove) {
    EXPECT_EQ(removed_layer(keeping({0, 1, 2, 3, 5})), 4);
    EXPECT_EQ(removed_layer(keeping({0, 1, 2, 3})), std::nullopt);
    EXPECT_EQ(removed_layer(keeping({0, 1, 2, 3, 4, 5})), std::nullopt);
    EXPECT_EQ(describe(keeping({0, 1, 2, 3, 5})), "without layer 4");
    EXPECT_EQ(in_column(keeping({0, 1, 2, 3, 5})), "without layer   4");
}

/// Index and layer differ on purpose.
TEST(Candidates, are_ranked_by_score_then_by_layer) {
    const std::vector<ScoredCandidate> scored = {{keeping({5}), -1.0, {}},
                                                 {keeping({3}), -2.0, {}},
                                                 {keeping({0}), -1.0, {}},
                                                 {keeping({1, 2}), -0.5, {}},
                                                 {keeping({1}), -2.0, {}}};
    EXPECT_EQ(ranking(scored), (std::vector<size_t>{3, 2, 0, 4, 1}));
    EXPECT_TRUE(ranking({}).empty());
}

/// What the layer whose removal costs most was worth stands first; a layer that was restored is worth its score.
TEST(Candidates, of_the_most_important_layer_come_first) {
    const auto without = [](int64_t layer) {
        std::vector<int64_t> kept;
        for (int64_t one = 0; one < 6; ++one)
            if (one != layer) kept.push_back(one);
        return keeping(kept);
    };
    const double none = std::numeric_limits<double>::quiet_NaN();
    EXPECT_EQ(by_importance({{without(0), -1.0, {}}, {without(1), none, {}}, {without(2), -3.0, {}}}),
              (std::vector<size_t>{2, 0, 1}));
    EXPECT_EQ(by_importance({{keeping({0}), -1.0, {}}, {keeping({1}), none, {}}, {keeping({2}), -3.0, {}}}),
              (std::vector<size_t>{0, 2, 1}));
}

/// An order that sorting can rely on, whatever is among the scores.
TEST(Candidates, without_a_finite_score_come_last_by_layer) {
    const double none = std::numeric_limits<double>::quiet_NaN(), infinite = std::numeric_limits<double>::infinity();
    const std::vector<ScoredCandidate> scored = {{keeping({5}), none, {}},     {keeping({3}), -2.0, {}},
                                                 {keeping({4}), infinite, {}}, {keeping({1}), -infinite, {}},
                                                 {keeping({0}), -1.0, {}},     {keeping({2}), none, {}}};
    EXPECT_EQ(ranking(scored), (std::vector<size_t>{4, 1, 3, 5, 2, 0}));
}

}  // namespace
}  // namespace amalgam
