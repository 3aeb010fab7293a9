// SPDX-License-Identifier: Apache-2.0
// Rules that judge layers by themselves, against their definitions.
#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "../storage/temporary_folder.h"
#include "made_up_scores_of_layers.h"
#include "rules/selection_rule.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Numbers = std::vector<double>;

Layers chosen(const std::string& rule, int64_t budget, int64_t layers, const std::vector<ScoredCandidate>& scored) {
    Options options = default_values(selection_rule(rule).options);
    options["budget"] = std::to_string(budget);
    return selection_rule(rule).choose(options, layers, scored);
}

/// Scores of a rule's own candidates whose number `name` is by layer.
std::vector<ScoredCandidate> with(const std::string& rule, const std::string& name, const Numbers& by_layer) {
    return test::scores_of(*selection_rule(rule).scorer, int64_t(by_layer.size()),
                           [&](int64_t layer, ScoredCandidate& one) {
                               (name == "score" ? one.score : one.measured[name]) = by_layer[size_t(layer)];
                           });
}

TEST(OneLayerRules, rank_by_what_they_say) {
    const Numbers numbers = {0.2, 0.5, 0.1, 0.4};
    EXPECT_EQ(chosen("kl_guided_removal", 2, 4, with("kl_guided_removal", "score", {-0.2, -0.5, -0.1, -0.4})),
              (Layers{1, 3}))
        << "what is missed most";
    EXPECT_EQ(chosen("recall_guided", 2, 4, with("recall_guided", "score", {-0.2, -0.5, -0.1, -0.4})), (Layers{1, 3}));
    EXPECT_EQ(chosen("perplexity", 2, 4, with("perplexity", "loss", numbers)), (Layers{1, 3}));
    EXPECT_EQ(chosen("hidden_state_removal", 3, 4, with("hidden_state_removal", "hidden_state_error", numbers)),
              (Layers{1, 3, 0}));
    EXPECT_EQ(chosen("hidden_state_addition", 2, 4, with("hidden_state_addition", "hidden_state_error", numbers)),
              (Layers{2, 0}))
        << "what helps most";
    EXPECT_EQ(chosen("aligned_addition", 2, 4, with("aligned_addition", "kl", numbers)), (Layers{2, 0}));
    EXPECT_EQ(chosen("ablation", 2, 4, with("ablation", "recall_loss", numbers)), (Layers{1, 3}));
    EXPECT_EQ(chosen("ablation_accuracy", 2, 4, with("ablation_accuracy", "recall", numbers)), (Layers{2, 0}));
}

TEST(OneLayerRules, tell_the_importance_that_they_choose_by) {
    const auto importance = [](const std::string& rule, const std::string& name, const Numbers& numbers) {
        return selection_rule(rule).importance(int64_t(numbers.size()), with(rule, name, numbers));
    };
    EXPECT_EQ(importance("recall_guided", "score", {-0.2, -0.5, -0.1}), (Numbers{0.2, 0.5, 0.1}));
    EXPECT_EQ(importance("perplexity", "loss", {3.2, 3.5, 3.1}), (Numbers{3.2, 3.5, 3.1}));
    EXPECT_EQ(importance("ablation_accuracy", "recall", {0.5, 0.0, 1.0}), (Numbers{-0.5, 0.0, -1.0}));
    EXPECT_EQ(importance("smart", "kl", {0.3, 0.1, 0.2}), (Numbers{-0.3, -0.1, -0.2}));
    EXPECT_FALSE(selection_rule("swaps").importance) << "it judges sets of layers";
}

TEST(OneLayerRules, say_what_is_missing) {
    test::expect_error(
        [] {
            chosen("perplexity", 1, 3, with("perplexity", "kl", {1, 2, 3}));
        },
        ExitCode::damaged_file, {"loss"});
    test::expect_error([] { chosen("ablation", 1, 3, {}); }, ExitCode::bad_input, {"scores of all 3 layers"});
    test::expect_error(
        [] {
            chosen("ablation_accuracy", 1, 3, with("ablation_accuracy", "recall", {0, 0, 0}));
        },
        ExitCode::bad_input, {"ablation_accuracy", "the same in every layer"});
}

TEST(KlGuidedAverage, takes_the_mean_place) {
    // Places of addition: 0 1 2 3. Removal puts layer 3 first, then 0, 1, 2: the means are 0.5, 1.5, 2.5, 1.5.
    const Numbers added = {-1.0, -2.0, -3.0, -4.0}, removed = {-0.4, -0.3, -0.2, -0.9};
    const auto scored = test::scores_of(restored_and_removed_scorer(), 4, [&](int64_t layer, ScoredCandidate& one) {
        one.score = restored_layer(one.candidate) ? added[size_t(layer)] : removed[size_t(layer)];
    });
    EXPECT_EQ(chosen("kl_guided_average", 3, 4, scored), (Layers{0, 1, 3}));
}

/// The formula by hand; on HALO's own measurements: published_halo_test.cpp.
TEST(Halo, weighs_recall_against_other_predictions) {
    const Numbers recall = {0.9, 0.1, 0.5, 0.8}, accuracy = {0.40, 0.30, 0.40, 0.39};
    const auto scored = test::scores_of(*selection_rule("halo").scorer, 4, [&](int64_t layer, ScoredCandidate& one) {
        one.measured = {{"recall", recall[size_t(layer)]}, {"accuracy", accuracy[size_t(layer)]}};
    });
    // 0 / 1e-10; 0.8 / 0.1 = 8; 0.4 / 1e-10, cut at 50; 0.1 / 0.01 = 10.
    EXPECT_EQ(chosen("halo", 4, 4, scored), (Layers{2, 3, 1, 0}));
}

/// The sets that the reference releases for SMART fit this structure; uniform sensitivities leave only the structure.
TEST(Smart, keeps_ends_and_even_distances) {
    std::mt19937_64 random(3);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (const auto& [layers, count] :
         std::map<int64_t, int64_t>{{28, 7}, {30, 8}, {36, 9}, {12, 5}, {7, 3}, {9, 9}, {5, 1}}) {
        Numbers kl;
        for (int64_t i = 0; i < layers; ++i) kl.push_back(uniform(random));
        Layers set = chosen("smart", count, layers, with("smart", "kl", kl));
        ASSERT_EQ(int64_t(set.size()), count);
        std::sort(set.begin(), set.end());
        if (count == 1) continue;
        EXPECT_LE(set.front(), layers / count - 1);
        EXPECT_GE(set.back(), layers - layers / count);
        const double gap = double(set.back() - set.front()) / double(count - 1);
        for (size_t i = 1; i < set.size(); ++i) {
            EXPECT_GE(double(set[i] - set[i - 1]), std::floor(gap));
            EXPECT_LE(double(set[i] - set[i - 1]), std::ceil(gap));
        }
    }
}

/// Against every set of a small model.
TEST(Smart, finds_the_best_such_set) {
    const int64_t layers = 12, count = 4, reach = layers / count;
    std::mt19937_64 random(5);
    std::uniform_real_distribution<double> uniform(0.0, 1.0);
    for (int64_t trial = 0; trial < 20; ++trial) {
        Numbers kl;
        for (int64_t i = 0; i < layers; ++i) kl.push_back(uniform(random));
        double best = 1e9;
        for (int64_t bits = 0; bits < (1 << layers); ++bits) {
            Layers set;
            double sum = 0.0;
            for (int64_t i = 0; i < layers; ++i)
                if (bits >> i & 1) {
                    set.push_back(i);
                    sum += kl[size_t(i)];
                }
            if (int64_t(set.size()) != count || set.front() >= reach || set.back() < layers - reach) continue;
            const double gap = double(set.back() - set.front()) / double(count - 1);
            bool even = true;
            for (size_t i = 1; i < set.size(); ++i)
                even = even && double(set[i] - set[i - 1]) >= std::floor(gap) &&
                       double(set[i] - set[i - 1]) <= std::ceil(gap);
            if (even) best = std::min(best, sum);
        }
        double found = 0.0;
        for (const int64_t layer : chosen("smart", count, layers, with("smart", "kl", kl))) found += kl[size_t(layer)];
        EXPECT_NEAR(found, best, 1e-12);
    }
}

/// The released sets of the reference (arXiv 2512.20569, its configurations) have SMART's structure.
TEST(Smart, allows_the_released_sets) {
    const std::vector<std::pair<int64_t, Layers>> released = {
        {28, {0, 4, 9, 14, 19, 23, 27}},  {28, {0, 3, 6, 9, 12, 16, 19, 23, 27}},  {36, {3, 11, 19, 27, 35}},
        {28, {2, 6, 10, 14, 18, 22, 27}}, {28, {2, 5, 8, 11, 14, 17, 20, 23, 27}}, {28, {0, 9, 18, 26}},
        {28, {0, 5, 10, 14, 18, 22, 26}}, {28, {0, 3, 6, 9, 12, 15, 19, 23, 26}}};
    for (const auto& [layers, set] : released) {
        Numbers kl(size_t(layers), 1.0);  // the released layers help most: the rule has to find just these
        for (const int64_t layer : set) kl[size_t(layer)] = 0.0;
        Layers found = chosen("smart", int64_t(set.size()), layers, with("smart", "kl", kl));
        std::sort(found.begin(), found.end());
        EXPECT_EQ(found, set);
    }
}

std::vector<ScoredCandidate> all_rounds(const Scorer& scorer) {
    std::vector<ScoredCandidate> scored;
    for (;;) {  // lower layers are worth more
        const auto next = scorer.next({4, "linear", scored});
        if (next.empty()) return scored;
        for (const Candidate& one : next) {
            double worth = 0.0;
            for (const int64_t layer : softmax_layers(one.layout)) worth += double(4 - layer);
            scored.push_back({one, worth, {}});
        }
    }
}

TEST(Rounds, keep_what_was_removed_last_or_added_first) {
    for (const char* rule : {"removal_rounds", "addition_rounds"}) {
        auto scored = all_rounds(*selection_rule(rule).scorer);
        EXPECT_EQ(chosen(rule, 2, 4, scored), (Layers{0, 1})) << rule;
        EXPECT_EQ(chosen(rule, 4, 4, scored), (Layers{0, 1, 2, 3})) << rule;
        scored.pop_back();
        test::expect_error([&] { chosen(rule, 2, 4, scored); }, ExitCode::damaged_file, {"rounds"});
    }
}

}  // namespace
}  // namespace amalgam
