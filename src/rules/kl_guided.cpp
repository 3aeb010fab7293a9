// SPDX-License-Identifier: Apache-2.0
// The paper's rule: softmax stays where restoring it alone brings the student nearest to the teacher ("Distilling to
// Hybrid Attention Models via KL-Guided Layer Selection", arXiv 2512.20569).
#include <algorithm>

#include "rules/budget.h"
#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::vector<int64_t> choose(const Options& options, int64_t layers, const std::vector<ScoredCandidate>& scored) {
    require(!scored.empty(), "select.rule: kl_guided needs the scores of all ", layers,
            " layers (0 are there); set score.tokens");
    std::vector<int64_t> order;  // a layer that several candidates restore counts by its best
    for (const size_t candidate : ranking(scored)) {
        const auto layer = restored_layer(scored[candidate].candidate);
        if (layer && std::find(order.begin(), order.end(), *layer) == order.end()) order.push_back(*layer);
    }
    for (int64_t layer = 0; layer < layers; ++layer)
        if (std::find(order.begin(), order.end(), layer) == order.end())
            throw Error(text("scores: layer ", layer, " was not scored"), ExitCode::damaged_file);
    order.resize(size_t(kept_by_budget(options, layers)));
    return order;
}

}  // namespace

SelectionRule kl_guided_rule() {
    return {.name = "kl_guided",
            .options = {budget_option()},
            .scorer = &restored_layer_scorer(),
            .kept = kept_by_budget,
            .choose = choose};
}

}  // namespace amalgam
