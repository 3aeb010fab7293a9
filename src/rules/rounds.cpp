// SPDX-License-Identifier: Apache-2.0
// Greedy rounds: softmax stays in the layers that the rounds of removal_rounds_scorer() take last, or in those that the
// rounds of addition_rounds_scorer() choose first. Both judge a layer by text and by recall questions, beside the
// layers that have softmax at that time.
#include <algorithm>

#include "rules/kept_curve.h"
#include "rules/race_option.h"
#include "system/error.h"

namespace amalgam {
namespace {

/// All layers, as the rounds came to them.
std::vector<int64_t> by_rounds(Round round, int64_t layers, const std::vector<ScoredCandidate>& scored) {
    std::vector<int64_t> order = changed_by_rounds(round, layers, scored);
    if (int64_t(order.size()) + 1 < layers)
        throw Error(text("scores: the rounds of ", round == Round::takes_softmax ? "removal" : "addition",
                         " end after ", order.size(), " of ", layers - 1, " rounds"),
                    ExitCode::damaged_file);
    for (int64_t layer = 0; layer < layers; ++layer)  // the one that was left
        if (std::find(order.begin(), order.end(), layer) == order.end()) order.push_back(layer);
    return order;
}

std::vector<int64_t> removed_last(int64_t layers, const std::vector<ScoredCandidate>& scored) {
    std::vector<int64_t> order = by_rounds(Round::takes_softmax, layers, scored);
    std::reverse(order.begin(), order.end());
    return order;
}

std::vector<int64_t> added_first(int64_t layers, const std::vector<ScoredCandidate>& scored) {
    return by_rounds(Round::gives_softmax, layers, scored);
}

SelectionRule rounds_rule(const std::string& name, const Scorer& scorer, decltype(SelectionRule::order) order) {
    SelectionRule rule = ordered_rule(name, scorer, order);
    rule.options.push_back(race_option());
    return rule;
}

}  // namespace

SelectionRule removal_rounds_rule() {
    return rounds_rule("removal_rounds", removal_rounds_scorer(), removed_last);
}

SelectionRule addition_rounds_rule() {
    return rounds_rule("addition_rounds", addition_rounds_scorer(), added_first);
}

}  // namespace amalgam
