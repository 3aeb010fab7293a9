// SPDX-License-Identifier: Apache-2.0
#include "rules/scorers.h"

#include <algorithm>
#include <iterator>
#include <numeric>

#include "rules/race_option.h"
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

/// `layout` with `mixer` in each of `layers` in turn. The last one first: what stands below the changed layer was then
/// computed for the candidate before (selection/assembled_model.h).
Candidates each_changed(const Layout& layout, const std::vector<int64_t>& layers, const std::string& mixer) {
    Candidates candidates;
    for (auto layer = layers.rbegin(); layer != layers.rend(); ++layer) {
        candidates.push_back({layout, {}});
        candidates.back().layout[size_t(*layer)] = mixer;
    }
    return candidates;
}

Candidates each_removed(int64_t layers, const std::string& mixer) {
    const Layout layout = all_softmax(layers);
    return each_changed(layout, softmax_layers(layout), mixer);
}

Candidates restored_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? restored_layers(so_far.layers, so_far.mixer) : Candidates();
}

Candidates removed_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? each_removed(so_far.layers, so_far.mixer) : Candidates();
}

Candidates both_once(const ScoresSoFar& so_far) {
    if (!so_far.scored.empty()) return {};
    Candidates both = restored_layers(so_far.layers, so_far.mixer);
    for (const Candidate& removed : each_removed(so_far.layers, so_far.mixer)) both.push_back(removed);
    return both;
}

Candidates ablated_once(const ScoresSoFar& so_far) {
    return so_far.scored.empty() ? each_removed(so_far.layers, ablated_mixer) : Candidates();
}

/// Layers that rounds have changed in `layout`.
std::vector<int64_t> changed_layers(Round round, const Layout& layout) {
    std::vector<int64_t> changed;
    for (size_t layer = 0; layer < layout.size(); ++layer)
        if ((layout[layer] == softmax_mixer) == (round == Round::gives_softmax)) changed.push_back(int64_t(layer));
    return changed;
}

std::vector<int64_t> all_but(const std::vector<int64_t>& left_out, int64_t layers) {
    std::vector<int64_t> rest;
    for (int64_t layer = 0; layer < layers; ++layer)
        if (std::find(left_out.begin(), left_out.end(), layer) == left_out.end()) rest.push_back(layer);
    return rest;
}

/// Of a round's candidates, which change one layer each to `mixer`: that of the layer which came second in the round
/// before, or the first one if there was none.
Candidate most_promising(const Candidates& round, const Scored& before, const std::string& mixer) {
    if (before.empty()) return round.front();
    const std::vector<size_t> order = ranking(before);
    Candidate promising = before[order[0]].candidate;
    const Layout& second = before[order[1]].candidate.layout;
    for (size_t layer = 0; layer < second.size(); ++layer)
        if (second[layer] == mixer) promising.layout[layer] = mixer;
    return promising;
}

template <Round round>
Candidates next_round(const ScoresSoFar& so_far) {
    const bool gives = round == Round::gives_softmax;
    const std::string mixer = gives ? softmax_mixer : so_far.mixer;
    Layout layout = gives ? all_linear(so_far.layers, so_far.mixer) : all_softmax(so_far.layers);
    const std::vector<int64_t> changed = changed_by_rounds(round, so_far.layers, so_far.scored);
    for (const int64_t layer : changed) layout[size_t(layer)] = mixer;
    const std::vector<int64_t> rest = all_but(changed, so_far.layers);
    if (rest.size() < 2) return {};
    Candidates candidates = each_changed(layout, rest, mixer);
    if (race_errors(so_far.options) == 0.0) return candidates;
    // A candidate can leave early only where another one of its size was measured.
    const auto is_measured = [&](const Candidate& one) {
        return std::ranges::find(so_far.scored, one, &ScoredCandidate::candidate) != so_far.scored.end();
    };
    if (std::erase_if(candidates, is_measured) > 0) return candidates;
    const size_t of_last_round = std::min(so_far.scored.size(), rest.size() + 1);
    return {
        most_promising(candidates, {so_far.scored.end() - std::ptrdiff_t(of_last_round), so_far.scored.end()}, mixer)};
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
    static const Scorer scorer = {.name = "removal_rounds",
                                  .distils = false,
                                  .depends_on = {"race_errors"},
                                  .next = next_round<Round::takes_softmax>,
                                  .count = of_rounds};
    return scorer;
}

const Scorer& addition_rounds_scorer() {
    static const Scorer scorer = {.name = "addition_rounds",
                                  .distils = false,
                                  .depends_on = {"race_errors"},
                                  .next = next_round<Round::gives_softmax>,
                                  .count = of_rounds};
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

std::vector<int64_t> changed_by_rounds(Round round, int64_t layers, const Scored& scored) {
    std::vector<int64_t> changed, rest = all_but({}, layers);
    auto next = scored.begin();
    while (rest.size() > 1 && size_t(scored.end() - next) >= rest.size()) {
        const Scored tried(next, next + std::ptrdiff_t(rest.size()));
        next += std::ptrdiff_t(rest.size());
        const std::vector<int64_t> after = changed_layers(round, tried[ranking(tried).front()].candidate.layout);
        const auto found = std::find_if(rest.begin(), rest.end(), [&](int64_t layer) {
            return std::binary_search(after.begin(), after.end(), layer);
        });
        if (found == rest.end() || after.size() != changed.size() + 1)
            throw Error(text("scores: candidate ", next - scored.begin() - 1, " does not fit the rounds before it"),
                        ExitCode::damaged_file);
        changed.push_back(*found);
        rest.erase(found);
    }
    return changed;
}

}  // namespace amalgam
