// SPDX-License-Identifier: Apache-2.0
#include "rules/scorers.h"

#include <algorithm>
#include <iterator>
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

Candidates restored_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? restored_layers(so_far.layers, so_far.mixer) : Candidates();
}

Candidates removed_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? each_removed(all_softmax(so_far.layers), so_far.mixer) : Candidates();
}

Candidates both_once(const ScoresSoFar& so_far) {
    if (!so_far.scored.empty()) return {};
    Candidates both = restored_layers(so_far.layers, so_far.mixer);
    for (const Candidate& removed : each_removed(all_softmax(so_far.layers), so_far.mixer)) both.push_back(removed);
    return both;
}

Candidates ablated_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? each_removed(all_softmax(so_far.layers), ablated_mixer) : Candidates();
}

Candidates next_round(const ScoresSoFar& so_far) {
    Layout layout = all_softmax(so_far.layers);
    for (const int64_t layer : removed_by_rounds(so_far.layers, so_far.scored)) layout[size_t(layer)] = so_far.mixer;
    return softmax_layers(layout).size() > 1 ? each_removed(layout, so_far.mixer) : Candidates();
}

Candidates nested_once(const ScoresSoFar& so_far) {
    if (!so_far.scored.empty()) return {};
    std::vector<int64_t> kept = so_far.order_of_gates;
    if (kept.empty()) {  // the layouts are not known yet, but how many layers each will keep
        kept.resize(size_t(so_far.layers));
        std::iota(kept.begin(), kept.end(), int64_t{0});
    }
    Candidates candidates = {{all_softmax(so_far.layers), {}}};
    while (!kept.empty()) {
        kept.pop_back();
        candidates.push_back({keep_softmax(so_far.layers, so_far.mixer, kept), {}});
    }
    return candidates;
}

int64_t one_a_layer(const ScoresSoFar& so_far) {
    return so_far.layers;
}
int64_t every_number(const ScoresSoFar& so_far) {
    return so_far.layers + 1;
}
int64_t two_a_layer(const ScoresSoFar& so_far) {
    return 2 * so_far.layers;
}
/// layers + (layers - 1) + ... + 2.
int64_t of_rounds(const ScoresSoFar& so_far) {
    return std::max<int64_t>(0, so_far.layers * (so_far.layers + 1) / 2 - 1);
}

}  // namespace

const Scorer& restored_layer_scorer() {
    static const Scorer scorer = {
        .name = "restored_layer", .distils = true, .next = restored_once, .count = one_a_layer};
    return scorer;
}

const Scorer& aligned_restored_layer_scorer() {
    static const Scorer scorer = {
        .name = "aligned_restored_layer", .distils = false, .next = restored_once, .count = one_a_layer};
    return scorer;
}

const Scorer& removed_layer_scorer() {
    static const Scorer scorer = {.name = "removed_layer", .distils = true, .next = removed_once, .count = one_a_layer};
    return scorer;
}

const Scorer& aligned_removed_layer_scorer() {
    static const Scorer scorer = {
        .name = "aligned_removed_layer", .distils = false, .next = removed_once, .count = one_a_layer};
    return scorer;
}

const Scorer& restored_and_removed_scorer() {
    static const Scorer scorer = {
        .name = "restored_and_removed", .distils = true, .next = both_once, .count = two_a_layer};
    return scorer;
}

const Scorer& ablated_layer_scorer() {
    static const Scorer scorer = {
        .name = "ablated_layer", .distils = false, .next = ablated_once, .count = one_a_layer};
    return scorer;
}

const Scorer& removal_rounds_scorer() {
    static const Scorer scorer = {.name = "removal_rounds", .distils = false, .next = next_round, .count = of_rounds};
    return scorer;
}

const Scorer& joint_gates_scorer() {
    static const Scorer scorer = {
        .name = "joint_gates", .distils = false, .trains_gates = true, .next = nested_once, .count = every_number};
    return scorer;
}

std::vector<int64_t> order_of_nested(int64_t layers, const Scored& scored) {
    std::vector<int64_t> order;
    std::vector<int64_t> left(static_cast<size_t>(layers));
    std::iota(left.begin(), left.end(), int64_t{0});
    for (size_t c = 0; c < scored.size(); ++c) {
        const std::vector<int64_t> kept = softmax_layers(scored[c].candidate.layout);
        std::vector<int64_t> gone;
        std::set_difference(left.begin(), left.end(), kept.begin(), kept.end(), std::back_inserter(gone));
        if (int64_t(kept.size()) != layers - int64_t(c) || gone.size() != (c > 0 ? 1U : 0U))
            throw Error(text("scores: candidate ", c, " does not keep all but one of the layers before it"),
                        ExitCode::damaged_file);
        order.insert(order.end(), gone.begin(), gone.end());
        left = kept;
    }
    if (!left.empty() || scored.empty())
        throw Error(text("scores: there are ", scored.size(), " numbers of kept layers, not ", layers + 1),
                    ExitCode::damaged_file);
    std::reverse(order.begin(), order.end());
    return order;
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
