// SPDX-License-Identifier: Apache-2.0
#include "rules/selection_rule.h"

#include <algorithm>
#include <set>

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using test::expect_error;

Options with(const std::string& rule, const Options& given) {
    Options options = default_values(selection_rule(rule).options);
    for (const auto& [name, value] : given) options[name] = value;
    return options;
}

Layers chosen(const std::string& rule, const Options& given, int64_t layers,
              const std::vector<ScoredCandidate>& scored = {}) {
    const Options options = with(rule, given);
    const Layers order = selection_rule(rule).choose(options, layers, scored);
    EXPECT_EQ(int64_t(order.size()), selection_rule(rule).kept(options, layers)) << rule;
    return order;
}

/// scores[i] is that of layer i; candidate 0 restores the last layer, so that no index is a layer.
std::vector<ScoredCandidate> scored(const std::vector<double>& scores) {
    std::vector<ScoredCandidate> all;
    const auto layers = int64_t(scores.size());
    for (int64_t layer = layers - 1; layer >= 0; --layer)
        all.push_back({{keep_softmax(layers, "linear", {layer}), {}}, scores[size_t(layer)], {}});
    return all;
}

std::vector<std::string> keys(const SelectionRule& rule) {
    std::vector<std::string> names;
    for (const Option& option : rule.options) names.push_back(option.name);
    return names;
}

TEST(SelectionRules, have_these_names_and_keys) {
    using Names = std::vector<std::string>;
    Names names;
    for (const SelectionRule& rule : selection_rules()) names.push_back(rule.name);
    EXPECT_EQ(names, (Names{"recall_guided",
                            "kl_guided",
                            "kl_guided_removal",
                            "kl_guided_average",
                            "hidden_state_addition",
                            "hidden_state_removal",
                            "aligned_addition",
                            "perplexity",
                            "smart",
                            "halo",
                            "ablation",
                            "ablation_accuracy",
                            "removal_rounds",
                            "addition_rounds",
                            "joint_gates",
                            "swaps",
                            "uniform",
                            "random",
                            "explicit",
                            "all_linear"}));
    EXPECT_EQ(keys(selection_rule("kl_guided")), Names{"budget"});
    for (const char* rule : {"recall_guided", "joint_gates"})
        EXPECT_EQ(keys(selection_rule(rule)), (Names{"budget", "recall_at_least", "kl_at_most"})) << rule;
    for (const char* rule : {"removal_rounds", "addition_rounds"})
        EXPECT_EQ(keys(selection_rule(rule)), (Names{"budget", "recall_at_least", "kl_at_most", "race_errors"}))
            << rule;
    EXPECT_EQ(keys(selection_rule("swaps")), (Names{"budget", "swap_rounds", "race_errors"}));
    EXPECT_EQ(keys(selection_rule("uniform")), (Names{"budget", "phase"}));
    EXPECT_EQ(keys(selection_rule("random")), (Names{"budget", "seed"}));
    EXPECT_EQ(keys(selection_rule("explicit")), Names{"layers"});
    EXPECT_TRUE(keys(selection_rule("all_linear")).empty());
    const std::set<std::string> without_scores = {"uniform", "random", "explicit", "all_linear"};
    for (const SelectionRule& rule : selection_rules())
        EXPECT_EQ(rule.scorer == nullptr, without_scores.contains(rule.name)) << rule.name;
    expect_error([] { selection_rule("best"); }, ExitCode::bad_input,
                 {"select.rule", "best",
                  "removal_rounds, addition_rounds, joint_gates, swaps, uniform, random, explicit, all_linear"});
}

TEST(SelectionRules, share_keys_that_they_declare_alike) {
    std::vector<SelectionRule> rules = selection_rules();
    Options values = default_values(options_of(rules));
    EXPECT_EQ(values, (Options{{"budget", "25%"},
                               {"recall_at_least", 0.0},
                               {"kl_at_most", 0.0},
                               {"swap_rounds", int64_t{3}},
                               {"race_errors", 0.0},
                               {"phase", int64_t{0}},
                               {"seed", int64_t{0}},
                               {"layers", Layers()}}));

    SelectionRule made_up = selection_rule("random");
    made_up.name = "made_up";
    made_up.options.push_back({.name = "share", .default_value = 0.5, .unit = "", .description = "made up"});
    rules.push_back(made_up);
    EXPECT_EQ(options_of(rules).back().name, "share");
    EXPECT_EQ(options_of(rules).size(), 9U);
    rules.back().options[1].default_value = int64_t{1};
    EXPECT_THROW(options_of(rules), std::logic_error) << "another default of the key seed";
}

TEST(KlGuided, keeps_the_best_within_the_budget) {
    const auto scores = scored({-4.0, -1.0, -3.0, -1.0, -2.0, -5.0, -6.0, -7.0});
    EXPECT_EQ(chosen("kl_guided", {}, 8, scores), (Layers{1, 3})) << "25%; equal scores: the lower layer first";
    EXPECT_EQ(chosen("kl_guided", {{"budget", "4"}}, 8, scores), (Layers{1, 3, 4, 2})) << "best first";
    EXPECT_EQ(chosen("kl_guided", {{"budget", "0.5"}}, 8, scores), (Layers{1, 3, 4, 2}));
    EXPECT_TRUE(chosen("kl_guided", {{"budget", "0"}}, 8, scores).empty());
    EXPECT_EQ(chosen("kl_guided", {{"budget", "8"}}, 8, scores), (Layers{1, 3, 4, 2, 0, 5, 6, 7}));
}

TEST(KlGuided, ties_go_to_the_lower_layer) {
    EXPECT_EQ(chosen("kl_guided", {{"budget", "5"}}, 5, scored({-1.0, -2.0, -1.0, -2.0, -1.0})),
              (Layers{0, 2, 4, 1, 3}));
    EXPECT_EQ(chosen("kl_guided", {{"budget", "2"}}, 3, scored({0.0, -0.0, -1.0})), (Layers{0, 1}));
}

TEST(KlGuided, larger_budgets_only_add_layers) {
    const auto scores = scored({-4.0, -1.0, -3.0, -1.5, -2.0, -5.0});
    Layers smaller;
    for (int64_t count = 0; count <= 6; ++count) {
        const Layers kept = chosen("kl_guided", {{"budget", std::to_string(count)}}, 6, scores);
        EXPECT_TRUE(std::equal(smaller.begin(), smaller.end(), kept.begin())) << count;
        smaller = kept;
    }
}

/// Of several candidates that restore a layer, the best counts; others count for no layer.
TEST(KlGuided, looks_at_candidates_that_restore_one_layer) {
    auto scores = scored({-4.0, -1.0, -3.0});
    scores.push_back({{keep_softmax(3, "linear", {0}), {{"learning_rate", 0.1}}}, -0.5, {}});
    scores.push_back({{keep_softmax(3, "linear", {1, 2}), {}}, 0.0, {}});
    EXPECT_EQ(chosen("kl_guided", {{"budget", "2"}}, 3, scores), (Layers{0, 1}));
}

TEST(KlGuided, needs_the_score_of_every_layer) {
    const SelectionRule& rule = selection_rule("kl_guided");
    const Options options = with("kl_guided", {});
    expect_error([&] { rule.choose(options, 8, {}); }, ExitCode::bad_input, {"select.rule", "8", "score.tokens"});
    auto scores = scored({-4.0, -1.0, -3.0});
    scores.pop_back();  // that of layer 0
    expect_error([&] { rule.choose(options, 3, scores); }, ExitCode::damaged_file, {"layer 0 was not scored"});
}

TEST(Uniform, keeps_equal_distances_from_the_phase) {
    const auto uniform = [](int64_t layers, int64_t count, int64_t phase) {
        return chosen("uniform", {{"budget", std::to_string(count)}, {"phase", phase}}, layers);
    };
    EXPECT_EQ(uniform(12, 3, 0), (Layers{0, 4, 8}));
    EXPECT_EQ(uniform(12, 3, 2), (Layers{2, 6, 10}));
    EXPECT_EQ(uniform(10, 3, 0), (Layers{0, 3, 6}));
    EXPECT_EQ(uniform(10, 3, 9), (Layers{9, 2, 5})) << "beyond the last layer it begins anew";
    EXPECT_TRUE(uniform(10, 0, 0).empty());
    EXPECT_EQ(chosen("uniform", {{"phase", int64_t{3}}}, 8), (Layers{3, 7})) << "25%";
    for (int64_t layers = 1; layers <= 40; ++layers)
        for (int64_t count = 0; count <= layers; ++count)
            for (int64_t phase = 0; phase < layers; ++phase) {
                const Layers kept = uniform(layers, count, phase);
                const std::set<int64_t> distinct(kept.begin(), kept.end());
                ASSERT_EQ(int64_t(distinct.size()), count) << layers << " " << count << " " << phase;
                if (count > 0) {
                    ASSERT_GE(*distinct.begin(), 0);
                    ASSERT_LT(*distinct.rbegin(), layers);
                }
            }
}

TEST(Uniform, refuses_a_phase_beyond_the_layers) {
    const SelectionRule& rule = selection_rule("uniform");
    const Options options = with("uniform", {{"phase", int64_t{8}}});
    ASSERT_EQ(rule.problems(options, 8).size(), 1U);
    EXPECT_EQ(rule.problems(options, 8)[0],
              "select.phase is 8 but the teacher has 8 layers (it is the first kept one) use 0 to 7");
    EXPECT_TRUE(rule.problems(options, 9).empty());
    EXPECT_TRUE(rule.problems(options, std::nullopt).empty());
}

TEST(Random, is_seeded_and_distinct) {
    std::set<Layers> found;
    std::vector<int64_t> often(20, 0);
    for (int64_t seed = 0; seed < 200; ++seed) {
        const Options options = {{"budget", "5"}, {"seed", seed}};
        const Layers one = chosen("random", options, 20);
        EXPECT_EQ(one, chosen("random", options, 20)) << "the same seed";
        EXPECT_EQ(std::set<int64_t>(one.begin(), one.end()).size(), 5U);
        found.insert(one);
        for (const int64_t layer : one) ++often.at(size_t(layer));
    }
    EXPECT_GT(found.size(), 150U) << "seeds differ";
    for (const int64_t times : often) {  // 50 expected of each, standard deviation 6
        EXPECT_GT(times, 20);
        EXPECT_LT(times, 80);
    }
}

TEST(Explicit, takes_the_layers_as_they_are) {
    EXPECT_EQ(chosen("explicit", {{"layers", Layers{6, 1, 4}}}, 8), (Layers{6, 1, 4}));
    const SelectionRule& rule = selection_rule("explicit");
    const auto problems = [&](const Layers& layers, std::optional<int64_t> of) {
        return rule.problems(with("explicit", {{"layers", layers}}), of);
    };
    EXPECT_TRUE(problems({3, 7}, 8).empty());
    EXPECT_TRUE(problems({3, 8}, std::nullopt).empty()) << "nobody knows how many there are";
    EXPECT_EQ(problems({}, 8).size(), 1U);
    ASSERT_EQ(problems({3, 8, 3}, 8).size(), 2U);
    EXPECT_EQ(problems({3, 8, 3}, 8)[0], "select.layers names layer 3 twice (a mistake?) remove one");
    EXPECT_EQ(problems({3, 8, 3}, 8)[1],
              "select.layers names layer 8 but the teacher has 8 (they are counted from 0) use 0 to 7");
}

TEST(AllLinear, keeps_nothing) {
    EXPECT_TRUE(chosen("all_linear", {}, 8).empty());
}

}  // namespace
}  // namespace amalgam
