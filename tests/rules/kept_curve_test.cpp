// SPDX-License-Identifier: Apache-2.0
// Budgets that the scores decide.
#include "rules/kept_curve.h"

#include <cmath>

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Scored = std::vector<ScoredCandidate>;
constexpr const char* linear = "gated_delta_net";

/// Every linear layer costs its number + 1 hundredths of a nat, layers 2 and 3 half of the recall each.
ScoredCandidate measured(const Candidate& candidate) {
    ScoredCandidate one{candidate, 0.0, {{"kl", 0.0}, {"recall_kl", 0.0}, {"recall", 0.8}}};
    for (size_t layer = 0; layer < candidate.layout.size(); ++layer) {
        if (candidate.layout[layer] == softmax_mixer) continue;
        one.measured["kl"] += 0.01 * double(layer + 1);
        if (layer >= 2) one.measured["recall"] -= 0.4;
        one.score = -one.measured["kl"];
    }
    return one;
}

Scored all_measured(const std::string& rule, const Options& options) {
    ScoresSoFar so_far{.layers = 4, .mixer = linear, .options = options};
    for (;;) {
        const auto next = next_candidates(selection_rule(rule), so_far);
        if (next.empty()) return so_far.scored;
        for (const Candidate& one : next) so_far.scored.push_back(measured(one));
    }
}

Options automatic(double recall_at_least, double kl_at_most) {
    return {{"budget", "auto"}, {"recall_at_least", recall_at_least}, {"kl_at_most", kl_at_most}};
}

TEST(KeptCurve, is_measured_once_for_every_number_of_layers) {
    for (const char* name : {"recall_guided", "removal_rounds", "addition_rounds", "joint_gates"}) {
        const SelectionRule& rule = selection_rule(name);
        const Options options = automatic(0.5, 0.0);
        const Scored scored = all_measured(name, options);
        for (size_t i = 0; i < scored.size(); ++i)
            for (size_t j = 0; j < i; ++j) EXPECT_FALSE(scored[i].candidate == scored[j].candidate) << name;
        EXPECT_LE(int64_t(scored.size()), most_candidates(rule, {.layers = 4, .mixer = linear, .options = options}));
        const auto curve = curve_of(rule.order(4, scored), scored);
        ASSERT_EQ(curve.size(), 5U) << name;
        for (int64_t kept = 0; kept <= 4; ++kept) EXPECT_EQ(curve[size_t(kept)].kept, kept);
        EXPECT_NEAR(curve[0].kl, 0.1, 1e-12) << "of all layers";
        EXPECT_EQ(curve[4].kl, 0.0);
        EXPECT_FALSE(curve[4].far_kl.has_value());
    }
}

TEST(KeptCurve, has_the_kl_of_far_context_where_it_was_measured) {
    Scored scored = all_measured("joint_gates", automatic(0.5, 0.0));
    for (ScoredCandidate& one : scored) one.measured["far_kl"] = 2.0 * one.measured["kl"];
    const auto curve = curve_of(selection_rule("joint_gates").order(4, scored), scored);
    ASSERT_EQ(curve.size(), 5U);
    for (const CurvePoint& point : curve) EXPECT_EQ(point.far_kl, 2.0 * point.kl);
}

TEST(KeptCurve, is_not_measured_for_a_budget_that_is_given) {
    const Options options = {{"budget", "2"}, {"recall_at_least", 0.0}, {"kl_at_most", 0.0}};
    EXPECT_EQ(all_measured("recall_guided", options).size(), 4U);
    EXPECT_EQ(all_measured("joint_gates", options).size(), 5U) << "its own candidates are the curve";
    EXPECT_FALSE(measures_curve(selection_rule("kl_guided"), {{"budget", "2"}}));
}

/// In the order 3 2 1 0 the KL is .10, .06, .03, .01 and 0 with 0 to 4 layers, recall 0, .4, .8, .8, .8.
TEST(AutomaticBudget, keeps_as_few_layers_as_reach_the_bounds) {
    const SelectionRule& rule = selection_rule("recall_guided");
    const auto kept = [&](double recall, double kl) {
        const Options options = automatic(recall, kl);
        EXPECT_FALSE(rule.kept(options, 4).has_value());
        return rule.choose(options, 4, all_measured("recall_guided", options));
    };
    EXPECT_EQ(kept(1.0, 0.0), (Layers{3, 2}));
    EXPECT_EQ(kept(0.4, 0.0), (Layers{3}));
    EXPECT_EQ(kept(0.4, 0.02), (Layers{3, 2, 1}));
    EXPECT_EQ(kept(0.0, 0.065), (Layers{3}));
    EXPECT_EQ(kept(0.0, 0.001), (Layers{3, 2, 1, 0}));
    EXPECT_EQ(kept(0.0, 1.0), Layers{});
}

TEST(AutomaticBudget, does_not_trust_a_set_smaller_than_one_that_misses) {
    std::vector<CurvePoint> curve;
    for (const double recall : {0.0, 0.9, 0.5, 0.85, 1.0})
        curve.push_back({.kept = int64_t(curve.size()), .kl = 0.0, .recall_kl = 0.0, .recall = recall});
    EXPECT_EQ(fewest_that_reach(automatic(0.8, 0.0), 4, curve), 3);
    curve.pop_back();
    test::expect_error([&] { fewest_that_reach(automatic(0.8, 0.0), 4, curve); }, ExitCode::damaged_file,
                       {"4 of 5 numbers"});
}

TEST(AutomaticBudget, needs_a_bound_and_a_teacher_that_recalls) {
    const SelectionRule& rule = selection_rule("recall_guided");
    EXPECT_EQ(rule.problems(automatic(0.0, 0.0), 4).size(), 1U);
    EXPECT_TRUE(rule.problems(automatic(0.9, 0.0), 4).empty());
    EXPECT_EQ(rule.problems({{"budget", "2"}, {"recall_at_least", 0.9}, {"kl_at_most", 0.0}}, 4).size(), 1U);
    const std::vector<CurvePoint> curve(5);
    test::expect_error([&] { fewest_that_reach(automatic(0.9, 0.0), 4, curve); }, ExitCode::bad_input,
                       {"select.recall_at_least", "teacher"});
    test::expect_error(
        [] {
            selection_rule("uniform").kept({{"budget", "auto"}}, 4);
        },
        ExitCode::bad_input, {"select.budget is auto", "recall_guided"});
}

}  // namespace
}  // namespace amalgam
