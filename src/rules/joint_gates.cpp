// SPDX-License-Identifier: Apache-2.0
// Softmax stays where the gates that were trained all at once are largest: FlashMorph (arXiv 2606.30562).
#include "rules/budget.h"
#include "rules/selection_rule.h"

namespace amalgam {
namespace {

std::vector<int64_t> choose(const Options& options, int64_t layers, const std::vector<ScoredCandidate>& scored) {
    std::vector<int64_t> order = order_of_nested(layers, scored);
    order.resize(size_t(kept_by_budget(options, layers)));
    return order;
}

}  // namespace

SelectionRule joint_gates_rule() {
    return {.name = "joint_gates",
            .options = {budget_option()},
            .scorer = &joint_gates_scorer(),
            .kept = kept_by_budget,
            .choose = choose};
}

}  // namespace amalgam
