// SPDX-License-Identifier: Apache-2.0
#include "rules/scorers.h"

#include <algorithm>

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
constexpr const char* linear = "gated_delta_net";

TEST(Scorers, of_restored_layers_have_one_candidate_a_layer) {
    for (const Scorer* scorer : {&restored_layer_scorer(), &aligned_restored_layer_scorer()}) {
        const auto candidates = scorer->next({6, linear});
        ASSERT_EQ(candidates.size(), 6U);
        for (int64_t layer = 0; layer < 6; ++layer)
            EXPECT_EQ(candidates[size_t(layer)].layout, keep_softmax(6, linear, {layer}));
    }
}

TEST(Scorers, of_removed_layers_begin_with_the_last) {
    for (const Scorer* scorer : {&removed_layer_scorer(), &aligned_removed_layer_scorer()}) {
        const auto candidates = scorer->next({3, linear});
        ASSERT_EQ(candidates.size(), 3U);
        EXPECT_EQ(candidates[0].layout, (Layout{"softmax", "softmax", linear}));
        EXPECT_EQ(candidates[2].layout, (Layout{linear, "softmax", "softmax"}));
    }
    EXPECT_EQ(ablated_layer_scorer().next({2, linear})[1].layout, (Layout{"ablated", "softmax"}));
}

/// The score of what is left softmax: the sum of its layers' worth, but layers 1 and 4 are worth something together
/// only.
double worth(const Layout& layout) {
    const double alone[] = {3.0, 0.0, 1.0, 2.0, 0.0};
    const Layers kept = softmax_layers(layout);
    double sum = 0.0;
    for (const int64_t layer : kept) sum += alone[layer];
    const auto is_kept = [&](int64_t layer) { return std::find(kept.begin(), kept.end(), layer) != kept.end(); };
    return sum + (is_kept(1) && is_kept(4) ? 10.0 : 0.0);
}

std::vector<ScoredCandidate> all_rounds(int64_t layers, const Scorer& scorer = removal_rounds_scorer()) {
    std::vector<ScoredCandidate> scored;
    for (;;) {
        const auto next = scorer.next({layers, linear, scored});
        if (next.empty()) return scored;
        for (const Candidate& one : next) scored.push_back({one, worth(one.layout), {}});
    }
}

TEST(RemovalRounds, keep_layers_that_are_worth_something_together) {
    const auto scored = all_rounds(5);
    EXPECT_EQ(changed_by_rounds(Round::takes_softmax, 5, scored), (Layers{2, 3, 0, 4})) << "then 1 is left";
}

TEST(AdditionRounds, find_what_is_worth_something_by_itself) {
    const auto scored = all_rounds(5, addition_rounds_scorer());
    EXPECT_EQ(changed_by_rounds(Round::gives_softmax, 5, scored), (Layers{0, 3, 2, 1}))
        << "then 4, by which 1 is worth it";
    for (size_t i = 0; i < 5; ++i)
        EXPECT_EQ(scored[i].candidate.layout, keep_softmax(5, linear, {4 - int64_t(i)})) << "the last layer first";
    EXPECT_EQ(scored[5].candidate.layout, keep_softmax(5, linear, {0, 4}));
    EXPECT_EQ(softmax_layers(scored.back().candidate.layout).size(), 4U);
}

TEST(Rounds, are_as_many_as_they_say) {
    for (const Scorer* scorer : {&removal_rounds_scorer(), &addition_rounds_scorer()})
        for (const int64_t layers : {1, 2, 5, 9}) {
            std::vector<ScoredCandidate> scored;
            for (;;) {
                const auto next = scorer->next({layers, linear, scored});
                if (next.empty()) break;
                for (const Candidate& one : next) scored.push_back({one, 0.0, {}});
            }
            EXPECT_EQ(int64_t(scored.size()), scorer->count({layers, linear})) << scorer->name;
        }
    for (const Scorer* once : {&restored_layer_scorer(), &restored_and_removed_scorer(), &ablated_layer_scorer()}) {
        const auto all = once->next({7, linear});
        EXPECT_EQ(int64_t(all.size()), once->count({7, linear})) << once->name;
        EXPECT_TRUE(once->next({7, linear, {{all[0], 0.0, {}}}}).empty());
    }
}

/// The candidates of each call of next() with which a round races.
std::vector<std::vector<Candidate>> raced(int64_t layers, const Scorer& scorer, std::vector<ScoredCandidate>& scored) {
    std::vector<std::vector<Candidate>> calls;
    for (;;) {
        calls.push_back(
            scorer.next({.layers = layers, .mixer = linear, .scored = scored, .options = {{"race_errors", 3.0}}}));
        if (calls.back().empty()) return calls;
        for (const Candidate& one : calls.back()) scored.push_back({one, worth(one.layout), {}});
    }
}

TEST(Rounds, that_race_have_one_candidate_to_beat_and_come_to_the_same) {
    for (const auto& [scorer, round] : {std::pair(&removal_rounds_scorer(), Round::takes_softmax),
                                        std::pair(&addition_rounds_scorer(), Round::gives_softmax)}) {
        std::vector<ScoredCandidate> scored;
        const auto calls = raced(5, *scorer, scored);
        std::vector<size_t> sizes;
        for (const auto& call : calls) sizes.push_back(call.size());
        EXPECT_EQ(sizes, (std::vector<size_t>{1, 4, 1, 3, 1, 2, 1, 1, 0})) << scorer->name;
        const auto all = all_rounds(5, *scorer);
        EXPECT_EQ(changed_by_rounds(round, 5, scored), changed_by_rounds(round, 5, all)) << scorer->name;
        ASSERT_EQ(scored.size(), all.size());
        for (const ScoredCandidate& one : all)
            EXPECT_EQ(std::ranges::count(scored, one.candidate, &ScoredCandidate::candidate), 1) << scorer->name;
    }
}

/// Of the layers that are worth nothing together, 2 goes first, and 3 came second.
TEST(RemovalRounds, that_race_begin_with_what_came_second_before) {
    std::vector<ScoredCandidate> scored;
    const auto calls = raced(5, removal_rounds_scorer(), scored);
    EXPECT_EQ(calls[0][0].layout, keep_softmax(5, linear, {0, 1, 2, 3})) << "nothing is known: the last layer";
    EXPECT_EQ(calls[2][0].layout, keep_softmax(5, linear, {0, 1, 4})) << "after 2, that of 3";
    EXPECT_EQ(calls[4][0].layout, keep_softmax(5, linear, {1, 4})) << "after 3, that of 0";
}

TEST(RemovalRounds, that_are_not_finished_say_nothing) {
    auto scored = all_rounds(5);
    scored.resize(5 + 3);
    EXPECT_EQ(changed_by_rounds(Round::takes_softmax, 5, scored), Layers{2});
}

TEST(RemovalRounds, of_other_candidates_are_refused) {
    auto scored = all_rounds(5);
    for (size_t i = 5; i < 9; ++i) scored[i].candidate.layout = keep_softmax(5, linear, {0, 1, 2, 3, 4});
    test::expect_error([&] { changed_by_rounds(Round::takes_softmax, 5, scored); }, ExitCode::damaged_file, {"rounds"});
    test::expect_error([&] { changed_by_rounds(Round::gives_softmax, 5, all_rounds(5)); }, ExitCode::damaged_file,
                       {"rounds"});
}

TEST(JointGates, are_measured_with_every_number_of_layers_kept) {
    const auto candidates = joint_gates_scorer().next({4, linear, {}, {2, 0, 3, 1}});
    std::vector<Layers> kept;
    std::vector<ScoredCandidate> scored;
    for (const Candidate& one : candidates) {
        kept.push_back(softmax_layers(one.layout));
        scored.push_back({one, 0.0, {}});
    }
    EXPECT_EQ(kept, (std::vector<Layers>{{0, 1, 2, 3}, {0, 2, 3}, {0, 2}, {2}, {}}));
    EXPECT_EQ(int64_t(kept.size()), joint_gates_scorer().count({4, linear}));
    EXPECT_TRUE(joint_gates_scorer().next({4, linear, scored, {2, 0, 3, 1}}).empty());
    EXPECT_EQ(joint_gates_scorer().next({4, linear}).size(), 5U) << "as many before any gate was trained";
    EXPECT_EQ(order_of_nested(4, scored), (Layers{2, 0, 3, 1}));
    auto fewer = scored, others = scored;
    fewer.pop_back();
    others[3].candidate.layout = keep_softmax(4, linear, {3});
    for (const auto& wrong : {fewer, others})
        test::expect_error([&] { order_of_nested(4, wrong); }, ExitCode::damaged_file, {"scores"});
}

}  // namespace
}  // namespace amalgam
