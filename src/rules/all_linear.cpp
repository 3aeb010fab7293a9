// SPDX-License-Identifier: Apache-2.0
// No layer keeps softmax.
#include "rules/selection_rule.h"

namespace amalgam {

SelectionRule all_linear_rule() {
    return {
        .name = "all_linear",
        .options = {},
        .kept = [](const Options&, int64_t) { return int64_t{0}; },
        .choose = [](const Options&, int64_t, const std::vector<ScoredCandidate>&) { return std::vector<int64_t>(); }};
}

}  // namespace amalgam
