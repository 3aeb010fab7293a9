// SPDX-License-Identifier: Apache-2.0
#include "rules/scorers.h"

#include <algorithm>
#include <numeric>

#include "system/error.h"

namespace amalgam {
namespace {

using Candidates = std::vector<Candidate>;
using Scored = std::vector<ScoredCandidate>;

Candidates restored_layers(int64_t layers, const std::string& mixer) {
    Candidates candidates;
    for (int64_t layer = 0; layer < layers; ++layer) candidates.push_back({keep_softmax(layers, mixer, {layer}), {}});
    return candidates;
}

/// `layout` with `mixer` in each of its softmax layers in turn. The last one first: what stands below the changed layer
/// was then computed for the candidate before (selection/assembled_model.h).
Candidates each_removed(const Layout& layout, const std::string& mixer) {
    Candidates candidates;
    const std::vector<int64_t> kept = softmax_layers(layout);
    for (auto layer = kept.rbegin(); layer != kept.rend(); ++layer) {
        candidates.push_back({layout, {}});
        candidates.back().layout[size_t(*layer)] = mixer;
    }
    return candidates;
}

Candidates restored_once(int64_t layers, const std::string& mixer, const Scored& scored) {
    return scored.empty() ? restored_layers(layers, mixer) : Candidates();
}

Candidates removed_once(int64_t layers, const std::string& mixer, const Scored& scored) {
    return scored.empty() ? each_removed(all_softmax(layers), mixer) : Candidates();
}

Candidates both_once(int64_t layers, const std::string& mixer, const Scored& scored) {
    if (!scored.empty()) return {};
    Candidates both = restored_layers(layers, mixer);
    for (const Candidate& removed : each_removed(all_softmax(layers), mixer)) both.push_back(removed);
    return both;
}

Candidates ablated_once(int64_t layers, const std::string&, const Scored& scored) {
    return scored.empty() ? each_removed(all_softmax(layers), ablated_mixer) : Candidates();
}

Candidates next_round(int64_t layers, const std::string& mixer, const Scored& scored) {
    Layout layout = all_softmax(layers);
    for (const int64_t layer : removed_by_rounds(layers, scored)) layout[size_t(layer)] = mixer;
    return softmax_layers(layout).size() > 1 ? each_removed(layout, mixer) : Candidates();
}

int64_t one_a_layer(int64_t layers) {
    return layers;
}
int64_t two_a_layer(int64_t layers) {
    return 2 * layers;
}
/// layers + (layers - 1) + ... + 2.
int64_t of_rounds(int64_t layers) {
    return std::max<int64_t>(0, layers * (layers + 1) / 2 - 1);
}

}  // namespace

const Scorer& restored_layer_scorer() {
    static const Scorer scorer = {"restored_layer", true, restored_once, one_a_layer};
    return scorer;
}

const Scorer& aligned_restored_layer_scorer() {
    static const Scorer scorer = {"aligned_restored_layer", false, restored_once, one_a_layer};
    return scorer;
}

const Scorer& removed_layer_scorer() {
    static const Scorer scorer = {"removed_layer", true, removed_once, one_a_layer};
    return scorer;
}

const Scorer& aligned_removed_layer_scorer() {
    static const Scorer scorer = {"aligned_removed_layer", false, removed_once, one_a_layer};
    return scorer;
}

const Scorer& restored_and_removed_scorer() {
    static const Scorer scorer = {"restored_and_removed", true, both_once, two_a_layer};
    return scorer;
}

const Scorer& ablated_layer_scorer() {
    static const Scorer scorer = {"ablated_layer", false, ablated_once, one_a_layer};
    return scorer;
}

const Scorer& removal_rounds_scorer() {
    static const Scorer scorer = {"removal_rounds", false, next_round, of_rounds};
    return scorer;
}

std::vector<int64_t> removed_by_rounds(int64_t layers, const Scored& scored) {
    std::vector<int64_t> kept(static_cast<size_t>(layers)), removed;
    std::iota(kept.begin(), kept.end(), int64_t{0});
    auto rest = scored.begin();
    while (kept.size() > 1 && size_t(scored.end() - rest) >= kept.size()) {
        const Scored round(rest, rest + std::ptrdiff_t(kept.size()));
        rest += std::ptrdiff_t(kept.size());
        const auto left = softmax_layers(round[ranking(round).front()].candidate.layout);
        const auto gone = std::find_if(kept.begin(), kept.end(), [&](int64_t layer) {
            return std::find(left.begin(), left.end(), layer) == left.end();
        });
        if (gone == kept.end() || left.size() + 1 != kept.size())
            throw Error(text("scores: candidate ", rest - scored.begin() - 1, " does not fit the rounds before it"),
                        ExitCode::damaged_file);
        removed.push_back(*gone);
        kept.erase(gone);
    }
    return removed;
}

}  // namespace amalgam
