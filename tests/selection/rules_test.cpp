// SPDX-License-Identifier: Apache-2.0
#include "selection/rules.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;

SelectJob job(const std::string& rule, const std::string& budget) {
    SelectJob select;
    select.rule = rule;
    select.budget = budget;
    return select;
}

TEST(RankLayers, from_the_highest_score_to_the_lowest) {
    EXPECT_EQ(rank_layers({-3.0, -1.0, -2.0}), (Layers{1, 2, 0}));
    EXPECT_TRUE(rank_layers({}).empty());
}

TEST(RankLayers, ties_go_to_the_lower_layer) {
    EXPECT_EQ(rank_layers({-1.0, -2.0, -1.0, -2.0, -1.0}), (Layers{0, 2, 4, 1, 3}));
    EXPECT_EQ(rank_layers({0.0, -0.0, 0.0}), (Layers{0, 1, 2}));
}

TEST(UniformLayers, at_equal_distances_from_the_phase) {
    EXPECT_EQ(uniform_layers(12, 3, 0), (Layers{0, 4, 8}));
    EXPECT_EQ(uniform_layers(12, 3, 2), (Layers{2, 6, 10}));
    EXPECT_EQ(uniform_layers(10, 3, 0), (Layers{0, 3, 6}));
    EXPECT_EQ(uniform_layers(10, 3, 9), (Layers{9, 2, 5})) << "beyond the last layer it begins anew";
    EXPECT_TRUE(uniform_layers(10, 0, 0).empty());
}

TEST(UniformLayers, are_distinct_for_every_count_and_phase) {
    for (int64_t layers = 1; layers <= 40; ++layers)
        for (int64_t count = 0; count <= layers; ++count)
            for (int64_t phase = 0; phase < layers; ++phase) {
                const Layers kept = uniform_layers(layers, count, phase);
                const std::set<int64_t> distinct(kept.begin(), kept.end());
                ASSERT_EQ(int64_t(distinct.size()), count) << layers << " " << count << " " << phase;
                if (count > 0) {
                    ASSERT_GE(*distinct.begin(), 0);
                    ASSERT_LT(*distinct.rbegin(), layers);
                }
            }
}

TEST(SelectLayers, kl_guided_keeps_the_best_within_the_budget) {
    const std::vector<double> scores = {-4.0, -1.0, -3.0, -1.0, -2.0, -5.0, -6.0, -7.0};
    const Selection quarter = select_layers(job("kl_guided", "25%"), 8, scores);
    EXPECT_EQ(quarter.layers, (Layers{1, 3}));
    EXPECT_EQ(quarter.order, (Layers{1, 3}));
    const Selection four = select_layers(job("kl_guided", "4"), 8, scores);
    EXPECT_EQ(four.layers, (Layers{1, 2, 3, 4}));
    EXPECT_EQ(four.order, (Layers{1, 3, 4, 2})) << "best first";
    EXPECT_EQ(select_layers(job("kl_guided", "0.5"), 8, scores).layers, four.layers);
    EXPECT_TRUE(select_layers(job("kl_guided", "0"), 8, scores).layers.empty());
    EXPECT_EQ(select_layers(job("kl_guided", "8"), 8, scores).layers.size(), 8U);
}

TEST(SelectLayers, kl_guided_needs_the_score_of_every_layer) {
    test::expect_error([] { select_layers(job("kl_guided", "1"), 8, {}); }, ExitCode::bad_input,
                       {"select.rule", "score.tokens"});
    test::expect_error([] { select_layers(job("kl_guided", "1"), 8, {-1.0}); }, ExitCode::bad_input, {"8", "1"});
}

TEST(SelectLayers, larger_budgets_only_add_layers) {
    const std::vector<double> scores = {-4.0, -1.0, -3.0, -1.5, -2.0, -5.0};
    Layers smaller;
    for (int64_t count = 0; count <= 6; ++count) {
        const Layers kept = select_layers(job("kl_guided", std::to_string(count)), 6, scores).layers;
        EXPECT_TRUE(std::includes(kept.begin(), kept.end(), smaller.begin(), smaller.end())) << count;
        smaller = kept;
    }
}

TEST(SelectLayers, uniform_uses_phase_and_budget) {
    SelectJob select = job("uniform", "25%");
    select.phase = 3;
    EXPECT_EQ(select_layers(select, 8, {}).layers, (Layers{3, 7}));
    select.phase = 7;
    EXPECT_EQ(select_layers(select, 8, {}).layers, (Layers{3, 7})) << "ascending";
}

TEST(SelectLayers, random_is_seeded_and_distinct) {
    SelectJob select = job("random", "5");
    std::set<Layers> found;
    std::vector<int64_t> often(20, 0);
    for (int64_t seed = 0; seed < 200; ++seed) {
        select.seed = seed;
        const Selection one = select_layers(select, 20, {});
        EXPECT_EQ(one.layers, select_layers(select, 20, {}).layers) << "the same seed";
        EXPECT_EQ(one.seed, seed);
        EXPECT_EQ(std::set<int64_t>(one.layers.begin(), one.layers.end()).size(), 5U);
        EXPECT_TRUE(std::is_sorted(one.layers.begin(), one.layers.end()));
        found.insert(one.layers);
        for (const int64_t layer : one.layers) ++often.at(size_t(layer));
    }
    EXPECT_GT(found.size(), 150U) << "seeds differ";
    for (const int64_t times : often) {  // 50 expected of each, standard deviation 6
        EXPECT_GT(times, 20);
        EXPECT_LT(times, 80);
    }
}

TEST(SelectLayers, explicit_layers_are_taken_as_they_are) {
    SelectJob select = job("explicit", "");
    select.layers = {6, 1, 4};
    const Selection found = select_layers(select, 8, {});
    EXPECT_EQ(found.layers, (Layers{1, 4, 6}));
    EXPECT_EQ(found.order, (Layers{6, 1, 4}));
    EXPECT_EQ(found.rule, "explicit");
}

TEST(SelectLayers, all_linear_keeps_nothing) {
    EXPECT_TRUE(select_layers(job("all_linear", "50%"), 8, {}).layers.empty());
}

TEST(SelectLayers, unknown_rules_are_refused) {
    test::expect_error([] { select_layers(job("best", "1"), 8, {}); }, ExitCode::bad_input, {"select.rule", "best"});
}

}  // namespace
}  // namespace amalgam
