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

namespace {

std::string words_for(const Candidate& candidate, size_t width) {
    const std::optional<int64_t> layer = restored_layer(candidate);
    std::string words = describe(candidate.layout);
    if (layer) {
        const std::string number = std::to_string(*layer);
        words = "layer " + std::string(std::max(width, number.size()) - number.size(), ' ') + number;
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

namespace {

std::vector<Candidate> restored_layers(int64_t layers, const std::string& mixer) {
    std::vector<Candidate> candidates;
    for (int64_t layer = 0; layer < layers; ++layer) candidates.push_back({keep_softmax(layers, mixer, {layer}), {}});
    return candidates;
}

}  // namespace

const Scorer& restored_layer_scorer() {
    static const Scorer scorer = {"restored_layer", restored_layers};
    return scorer;
}

}  // namespace amalgam
