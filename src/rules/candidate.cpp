// SPDX-License-Identifier: Apache-2.0
#include "rules/candidate.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "system/error.h"

namespace amalgam {

std::optional<int64_t> restored_layer(const Candidate& candidate) {
    const std::vector<int64_t> layers = softmax_layers(candidate.layout);
    return layers.size() == 1 ? std::optional(layers[0]) : std::nullopt;
}

std::optional<int64_t> removed_layer(const Candidate& candidate) {
    std::optional<int64_t> layer;
    for (size_t i = 0; i < candidate.layout.size(); ++i) {
        if (candidate.layout[i] == softmax_mixer) continue;
        if (layer) return std::nullopt;
        layer = int64_t(i);
    }
    return layer;
}

namespace {

std::string words_for(const Candidate& candidate, size_t width) {
    const std::optional<int64_t> restored = restored_layer(candidate), removed = removed_layer(candidate);
    std::string words = describe(candidate.layout);
    if (restored || removed) {
        const std::string number = std::to_string(restored ? *restored : *removed);
        words = std::string(restored ? "" : "without ") + "layer " +
                std::string(std::max(width, number.size()) - number.size(), ' ') + number;
    }
    for (const auto& [name, value] : candidate.numbers) words += text(", ", name, " ", value);
    return words;
}

}  // namespace

std::string describe(const Candidate& candidate) {
    return words_for(candidate, 0);
}

std::string in_column(const Candidate& candidate) {
    return words_for(candidate, 3);
}

std::vector<size_t> ranking(const std::vector<ScoredCandidate>& scored) {
    std::vector<size_t> order(scored.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
        const bool finite = std::isfinite(scored[a].score), other_finite = std::isfinite(scored[b].score);
        if (finite != other_finite) return finite;
        if (finite && scored[a].score != scored[b].score) return scored[a].score > scored[b].score;
        return softmax_layers(scored[a].candidate.layout) < softmax_layers(scored[b].candidate.layout);
    });
    return order;
}

std::vector<size_t> by_importance(std::vector<ScoredCandidate> scored) {
    const auto is_without_one = [](const ScoredCandidate& one) { return removed_layer(one.candidate).has_value(); };
    const auto has_one = [](const ScoredCandidate& one) { return restored_layer(one.candidate).has_value(); };
    // Of two layers a candidate may be both.
    if (std::all_of(scored.begin(), scored.end(), is_without_one) &&
        !std::all_of(scored.begin(), scored.end(), has_one))
        for (ScoredCandidate& one : scored) one.score = -one.score;
    return ranking(scored);
}

}  // namespace amalgam
