// SPDX-License-Identifier: Apache-2.0
// Scores of candidates that restore, remove or ablate one layer, as a scorer would have them.
#pragma once

#include "rules/scorers.h"

namespace amalgam::test {

/// `value(layer)` fills in what was measured of the candidate of a layer.
template <class Value>
std::vector<ScoredCandidate> scores_of(const Scorer& scorer, int64_t layers, Value value) {
    std::vector<ScoredCandidate> scored;
    for (const Candidate& candidate : scorer.next({layers, "linear"})) {
        const auto restored = restored_layer(candidate);
        scored.push_back({candidate, 0.0, {}});
        value(restored ? *restored : *removed_layer(candidate), scored.back());
    }
    return scored;
}

}  // namespace amalgam::test
