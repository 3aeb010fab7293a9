// SPDX-License-Identifier: Apache-2.0
// Softmax stays where taking it away costs most, judged by text and by recall questions beside the layers that still
// have it: the layers that the rounds of removal_rounds_scorer() take last.
#include <algorithm>

#include "rules/kept_curve.h"
#include "system/error.h"

namespace amalgam {
namespace {

std::vector<int64_t> order(int64_t layers, const std::vector<ScoredCandidate>& scored) {
    std::vector<int64_t> removed = removed_by_rounds(layers, scored);
    if (int64_t(removed.size()) + 1 < layers)
        throw Error(text("scores: the rounds of removal end after ", removed.size(), " of ", layers - 1, " rounds"),
                    ExitCode::damaged_file);
    for (int64_t layer = 0; layer < layers; ++layer)  // the one that was left
        if (std::find(removed.begin(), removed.end(), layer) == removed.end()) removed.push_back(layer);
    std::reverse(removed.begin(), removed.end());
    return removed;
}

}  // namespace

SelectionRule removal_rounds_rule() {
    return ordered_rule("removal_rounds", removal_rounds_scorer(), order);
}

}  // namespace amalgam
