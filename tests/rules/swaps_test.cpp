// SPDX-License-Identifier: Apache-2.0
// Exchanges of layers, among sets whose worth is made up, against all sets that there are.
#include <algorithm>
#include <random>
#include <set>

#include "../storage/temporary_folder.h"
#include "rules/selection_rule.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Scored = std::vector<ScoredCandidate>;
constexpr const char* linear = "gated_delta_net";

/// What a set of layers is worth: its layers by themselves, and pairs of them.
class Worth {
  public:
    Worth(int64_t layers, unsigned seed) {
        std::mt19937 random(seed);
        std::normal_distribution<double> normal;
        for (int64_t i = 0; i < layers; ++i) {
            pair_.emplace_back();
            for (int64_t j = 0; j <= i; ++j) pair_.back().push_back(normal(random));
        }
    }
    double operator()(const Layers& kept) const {
        double sum = 0.0;
        for (const int64_t a : kept)
            for (const int64_t b : kept)
                if (b <= a) sum += pair_[size_t(a)][size_t(b)];
        return sum;
    }

  private:
    std::vector<std::vector<double>> pair_;
};

Options options(int64_t budget, int64_t rounds) {
    return {{"budget", std::to_string(budget)}, {"swap_rounds", rounds}};
}

Scored searched(int64_t layers, const Options& options, const Worth& worth) {
    ScoresSoFar so_far{.layers = layers, .mixer = linear, .options = options};
    for (;;) {
        const auto next = swaps_scorer().next(so_far);
        if (next.empty()) return so_far.scored;
        for (const Candidate& one : next) so_far.scored.push_back({one, worth(softmax_layers(one.layout)), {}});
    }
}

Layers chosen(int64_t layers, const Options& options, const Scored& scored) {
    Layers kept = selection_rule("swaps").choose(options, layers, scored);
    std::sort(kept.begin(), kept.end());
    return kept;
}

/// All sets that differ from `kept` in one layer.
std::vector<Layers> neighbours(int64_t layers, const Layers& kept) {
    std::vector<Layers> all;
    for (size_t i = 0; i < kept.size(); ++i)
        for (int64_t in = 0; in < layers; ++in) {
            if (std::find(kept.begin(), kept.end(), in) != kept.end()) continue;
            all.push_back(kept);
            all.back()[i] = in;
            std::sort(all.back().begin(), all.back().end());
        }
    return all;
}

TEST(Swaps, end_where_no_exchange_is_better) {
    for (const unsigned seed : {1U, 2U, 3U, 4U, 5U}) {
        const Worth worth(7, seed);
        const Options given = options(3, 100);
        const Scored scored = searched(7, given, worth);
        const Layers kept = chosen(7, given, scored);
        for (const Layers& other : neighbours(7, kept)) EXPECT_LE(worth(other), worth(kept)) << "seed " << seed;
        std::set<Layout> distinct;
        for (const ScoredCandidate& one : scored) distinct.insert(one.candidate.layout);
        EXPECT_EQ(distinct.size(), scored.size()) << "nothing is measured twice";
    }
}

TEST(Swaps, of_one_round_make_the_best_exchange) {
    for (const unsigned seed : {1U, 2U, 3U, 4U, 5U}) {
        const Worth worth(6, seed);
        const Layers start = chosen(6, options(2, 0), searched(6, options(2, 0), worth));
        const Scored scored = searched(6, options(2, 1), worth);
        const Layers kept = chosen(6, options(2, 1), scored);
        double best = worth(start);
        for (const Layers& other : neighbours(6, start)) best = std::max(best, worth(other));
        EXPECT_DOUBLE_EQ(worth(kept), best) << "seed " << seed;
        EXPECT_LE(int64_t(scored.size()),
                  swaps_scorer().count({.layers = 6, .mixer = linear, .options = options(2, 1)}));
    }
}

/// Without exchanges: the layers without which alone the score is lowest.
TEST(Swaps, begin_with_the_set_of_recall_guided) {
    const Worth worth(6, 9);
    const Scored scored = searched(6, options(2, 0), worth);
    ASSERT_EQ(scored.size(), 7U);
    const Scored alone(scored.begin(), scored.begin() + 6);
    Options given = default_values(selection_rule("recall_guided").options);
    given["budget"] = "2";
    EXPECT_EQ(selection_rule("swaps").choose(options(2, 0), 6, scored),
              selection_rule("recall_guided").choose(given, 6, alone));
}

TEST(Swaps, have_nothing_to_exchange_at_either_end) {
    const Worth worth(4, 1);
    for (const int64_t budget : {0, 4}) {
        const Options given = options(budget, 3);
        const Scored scored = searched(4, given, worth);
        EXPECT_EQ(scored.size(), 5U);
        EXPECT_EQ(int64_t(chosen(4, given, scored).size()), budget);
    }
}

TEST(Swaps, that_have_not_ended_are_refused) {
    const Worth worth(6, 3);
    Scored scored = searched(6, options(2, 3), worth);
    scored.pop_back();
    test::expect_error([&] { chosen(6, options(2, 3), scored); }, ExitCode::damaged_file, {"not measured"});
    scored.resize(3);
    test::expect_error([&] { chosen(6, options(2, 3), scored); }, ExitCode::damaged_file, {"not measured"});
}

}  // namespace
}  // namespace amalgam
