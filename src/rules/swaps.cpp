// SPDX-License-Identifier: Apache-2.0
// From the layers that recall_guided keeps, one kept layer is exchanged for one left out, time after time, as long as
// the score of the whole set rises: a local search among sets of one size, by steepest ascent.
#include <algorithm>
#include <map>

#include "rules/budget.h"
#include "rules/race_option.h"
#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Candidates = std::vector<Candidate>;
using Scored = std::vector<ScoredCandidate>;

struct Search {
    Layers by_importance;  // all layers, that first without which alone the score is lowest
    Layers kept;           // of the best set so far, ascending
    Candidates missing;    // to be measured before the search can go on; none: it has ended
};

Candidates each_alone(const ScoresSoFar& so_far) {
    return aligned_removed_layer_scorer().next({so_far.layers, so_far.mixer});
}

/// All sets with one layer of `kept` exchanged. Neighbours in this order have their first layers in common, which are
/// then computed once (selection/assembled_model.h).
std::vector<Layout> exchanged(const ScoresSoFar& so_far, const Layers& kept) {
    std::vector<Layout> all;
    const Layout layout = keep_softmax(so_far.layers, so_far.mixer, kept);
    for (const int64_t out : kept)
        for (int64_t in = 0; in < so_far.layers; ++in) {
            if (layout[size_t(in)] == softmax_mixer) continue;
            all.push_back(layout);
            std::swap(all.back()[size_t(out)], all.back()[size_t(in)]);
        }
    std::sort(all.begin(), all.end());
    return all;
}

Search search(const ScoresSoFar& so_far) {
    Search search;
    if (int64_t(so_far.scored.size()) < so_far.layers) {
        search.missing = each_alone(so_far);
        return search;
    }
    const auto rounds = option<int64_t>(so_far.options, "swap_rounds");
    const int64_t count = kept_by_budget(so_far.options, so_far.layers);
    search.by_importance = selection_rule("recall_guided")
                               .order(so_far.layers, {so_far.scored.begin(), so_far.scored.begin() + so_far.layers});
    std::map<Layout, double> scores;
    for (const ScoredCandidate& one : so_far.scored) scores[one.candidate.layout] = one.score;
    const auto measure = [&](const Layout& layout) {
        if (!scores.contains(layout)) search.missing.push_back({layout, {}});
    };
    Layout best =
        keep_softmax(so_far.layers, so_far.mixer, {search.by_importance.begin(), search.by_importance.begin() + count});
    search.kept = softmax_layers(best);
    measure(best);
    for (int64_t round = 0; round < rounds && search.missing.empty(); ++round) {
        const std::vector<Layout> neighbours = exchanged(so_far, search.kept);
        for (const Layout& layout : neighbours) measure(layout);
        if (!search.missing.empty()) break;
        const Layout before = best;
        for (const Layout& layout : neighbours)
            if (scores[layout] > scores[best]) best = layout;
        if (best == before) break;
        search.kept = softmax_layers(best);
    }
    return search;
}

Candidates next(const ScoresSoFar& so_far) {
    return search(so_far).missing;
}

int64_t count(const ScoresSoFar& so_far) {
    const int64_t kept = kept_by_budget(so_far.options, so_far.layers);
    return so_far.layers + 1 + option<int64_t>(so_far.options, "swap_rounds") * kept * (so_far.layers - kept);
}

Layers choose(const Options& options, int64_t layers, const Scored& scored) {
    std::string mixer = softmax_mixer;
    for (const ScoredCandidate& one : scored)
        for (const std::string& name : one.candidate.layout)
            if (name != softmax_mixer) mixer = name;
    const Search found = search({layers, mixer, scored, {}, options});
    if (!found.missing.empty())
        throw Error(text("scores: ", describe(found.missing.front()), " was not measured, on which the exchanges of ",
                         "layers depend"),
                    ExitCode::damaged_file);
    Layers order;
    for (const int64_t layer : found.by_importance)
        if (std::binary_search(found.kept.begin(), found.kept.end(), layer)) order.push_back(layer);
    return order;
}

}  // namespace

const Scorer& swaps_scorer() {
    static const Scorer scorer = {.name = "swaps",
                                  .distils = false,
                                  .depends_on = {"budget", "swap_rounds", "race_errors"},
                                  .next = next,
                                  .count = count};
    return scorer;
}

SelectionRule swaps_rule() {
    const Option rounds = {.name = "swap_rounds",
                           .default_value = int64_t{3},
                           .unit = "",
                           .description = "swaps: exchanges of a layer at most, each the best of all",
                           .range = {.low = 0}};
    return {.name = "swaps",
            .options = {budget_option(), rounds, race_option()},
            .scorer = &swaps_scorer(),
            .kept = kept_by_budget,
            .choose = choose};
}

}  // namespace amalgam
