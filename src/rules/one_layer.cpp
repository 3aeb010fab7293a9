// SPDX-License-Identifier: Apache-2.0
// Rules that judge every layer by itself, by a candidate in which it alone was restored, removed or ablated, and keep
// the most important ones. The published rules of this kind differ in the candidate and in what is measured of it.
#include <algorithm>
#include <cmath>
#include <limits>

#include "rules/budget.h"
#include "rules/kept_curve.h"
#include "rules/selection_rule.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Scored = std::vector<ScoredCandidate>;

double measured(const ScoredCandidate& one, const std::string& name) {
    const auto found = one.measured.find(name);
    if (found == one.measured.end())
        throw Error(text("scores: ", describe(one.candidate), " has no ", name,
                         " (it was scored by another rule, or by an earlier version)"),
                    ExitCode::damaged_file);
    return found->second;
}

using LayerOf = std::optional<int64_t> (*)(const Candidate&);
using Number = std::function<double(const ScoredCandidate&)>;

/// The number of every layer, by layer. A layer with several candidates counts by its largest.
std::vector<double> by_layer(int64_t layers, const Scored& scored, LayerOf layer_of, const Number& number) {
    require(!scored.empty(), "select.rule: needs the scores of all ", layers,
            " layers (0 are there); set score.tokens");
    constexpr double none = -std::numeric_limits<double>::infinity();
    std::vector<double> all(size_t(layers), none);
    for (const ScoredCandidate& one : scored)
        if (const auto layer = layer_of(one.candidate))
            all[size_t(*layer)] = std::max(all[size_t(*layer)], number(one));
    for (int64_t layer = 0; layer < layers; ++layer)
        if (all[size_t(layer)] == none)
            throw Error(text("scores: layer ", layer, " was not scored"), ExitCode::damaged_file);
    return all;
}

/// The `count` layers of largest importance, largest first; equal ones by layer.
Layers most_important(const std::vector<double>& importance, int64_t count) {
    Layers order;
    for (int64_t layer = 0; layer < int64_t(importance.size()); ++layer) order.push_back(layer);
    std::stable_sort(order.begin(), order.end(),
                     [&](int64_t a, int64_t b) { return importance[size_t(a)] > importance[size_t(b)]; });
    order.resize(size_t(count));
    return order;
}

std::optional<int64_t> ablated_layer(const Candidate& candidate) {
    const auto layer = removed_layer(candidate);
    return layer && candidate.layout[size_t(*layer)] == ablated_mixer ? layer : std::nullopt;
}

double score_of(const ScoredCandidate& one) {
    return one.score;
}
double loss_by_removal(const ScoredCandidate& one) {
    return -one.score;
}

Number measured_as(const std::string& name) {
    return [name](const ScoredCandidate& one) { return measured(one, name); };
}
Number minus(const std::string& name) {
    return [name](const ScoredCandidate& one) { return -measured(one, name); };
}

SelectionRule layer_rule(const std::string& name, const Scorer& scorer,
                         const decltype(SelectionRule::importance)& importance) {
    return {.name = name,
            .options = {budget_option()},
            .scorer = &scorer,
            .kept = kept_by_budget,
            .importance = importance,
            .choose = [importance](const Options& options, int64_t layers, const Scored& scored) {
                return most_important(importance(layers, scored), kept_by_budget(options, layers));
            }};
}

/// An order of equal numbers would be that of the layers, and look like a choice.
void expect_differences(const std::string& rule, const std::vector<double>& importance) {
    const auto [least, most] = std::minmax_element(importance.begin(), importance.end());
    require(importance.size() == 1 || *least < *most, "select.rule: ", rule,
            " measures the same in every layer (there is nothing to choose by; a teacher that answers none of "
            "score.recall's questions makes all alike) ask what it can answer, or take another rule, in a run of "
            "another name, which can take over the alignment with reuse");
}

/// A rule that ranks layers by one number of each one's candidate.
SelectionRule ranking_rule(const std::string& name, const Scorer& scorer, LayerOf layer_of, const Number& number) {
    const auto importance = [name, layer_of, number](int64_t layers, const Scored& scored) {
        std::vector<double> found = by_layer(layers, scored, layer_of, number);
        expect_differences(name, found);
        return found;
    };
    if (scorer.distils) return layer_rule(name, scorer, importance);
    SelectionRule rule = ordered_rule(name, scorer, [importance](int64_t layers, const Scored& scored) {
        return most_important(importance(layers, scored), layers);
    });
    rule.importance = importance;
    return rule;
}

SelectionRule that_asks(SelectionRule rule) {
    rule.needs_recall = true;
    return rule;
}

/// Places in the order of importance, the most important layer's is 0.
std::vector<double> places(const std::vector<double>& importance) {
    std::vector<double> place(importance.size());
    const Layers order = most_important(importance, int64_t(importance.size()));
    for (size_t i = 0; i < order.size(); ++i) place[size_t(order[i])] = double(i);
    return place;
}

std::vector<double> minus_mean_of_places(int64_t layers, const Scored& scored) {
    const auto added = places(by_layer(layers, scored, restored_layer, score_of));
    const auto removed = places(by_layer(layers, scored, removed_layer, loss_by_removal));
    std::vector<double> importance;
    for (size_t layer = 0; layer < added.size(); ++layer) importance.push_back(-(added[layer] + removed[layer]) / 2);
    return importance;
}

/// min(50, (max R - R_i) / (max C - C_i + 1e-10)) with R the recall and C the accuracy of ordinary predictions when
/// layer i is linear.
std::vector<double> recall_over_accuracy(int64_t layers, const Scored& scored) {
    const auto recall = by_layer(layers, scored, removed_layer, measured_as("recall"));
    const auto accuracy = by_layer(layers, scored, removed_layer, measured_as("accuracy"));
    const double most_recall = *std::max_element(recall.begin(), recall.end());
    const double most_accuracy = *std::max_element(accuracy.begin(), accuracy.end());
    std::vector<double> importance;
    for (size_t i = 0; i < recall.size(); ++i)
        importance.push_back(std::min(50.0, (most_recall - recall[i]) / (most_accuracy - accuracy[i] + 1e-10)));
    return importance;
}

struct WeighedSet {
    double total = -std::numeric_limits<double>::infinity();
    Layers layers;
};

/// The set of `count` >= 2 layers of largest total importance from `first` to `last` whose distances are floor or ceil
/// of (last - first) / (count - 1). Of equal sets the first found.
WeighedSet best_between(const std::vector<double>& importance, int64_t count, int64_t first, int64_t last) {
    const int64_t narrow = (last - first) / (count - 1), wide = narrow + ((last - first) % (count - 1) != 0);
    std::vector<WeighedSet> ending(importance.size());  // by last layer, the best of as many layers as seen so far
    ending[size_t(first)] = {importance[size_t(first)], {first}};
    for (int64_t k = 1; k < count; ++k) {
        std::vector<WeighedSet> longer(importance.size());
        for (int64_t l = first + narrow; l <= last; ++l) {
            for (const int64_t gap : {narrow, wide}) {
                if (l - gap < first) continue;
                const WeighedSet& shorter = ending[size_t(l - gap)];
                if (shorter.layers.empty() || shorter.total + importance[size_t(l)] <= longer[size_t(l)].total)
                    continue;
                longer[size_t(l)] = {shorter.total + importance[size_t(l)], shorter.layers};
                longer[size_t(l)].layers.push_back(l);
            }
        }
        ending = std::move(longer);
    }
    return ending[size_t(last)];
}

/// The best such set that begins within the first floor(L / K) layers and ends within the last floor(L / K).
Layers best_nearly_uniform(const std::vector<double>& importance, int64_t count) {
    if (count <= 1) return most_important(importance, count);
    const auto layers = int64_t(importance.size());
    const int64_t reach = std::max<int64_t>(1, layers / count);
    WeighedSet best;
    for (int64_t first = 0; first < reach; ++first)
        for (int64_t last = std::max(layers - reach, first + count - 1); last < layers; ++last)
            if (WeighedSet found = best_between(importance, count, first, last); found.total > best.total)
                best = std::move(found);
    std::sort(best.layers.begin(), best.layers.end(),
              [&](int64_t a, int64_t b) { return importance[size_t(a)] > importance[size_t(b)]; });
    return best.layers;
}

/// A layer is as important as restoring it alone is good; but the ones that are kept lie at nearly equal distances.
SelectionRule nearly_uniform_rule(const std::string& name, const Scorer& scorer) {
    const auto importance = [](int64_t layers, const Scored& scored) {
        return by_layer(layers, scored, restored_layer, minus("kl"));
    };
    SelectionRule rule = layer_rule(name, scorer, importance);
    rule.choose = [importance](const Options& options, int64_t layers, const Scored& scored) {
        return best_nearly_uniform(importance(layers, scored), kept_by_budget(options, layers));
    };
    return rule;
}

}  // namespace

std::vector<SelectionRule> one_layer_rules() {
    return {
        // Softmax stays where the teacher misses it most, in text and in recall questions, if the layer alone becomes
        // linear. A layer is judged beside all others, so what only works together is seen; one that is restored alone
        // in an all-linear student shows nothing of it (measured: analysis/results/selection).
        ranking_rule("recall_guided", aligned_removed_layer_scorer(), removed_layer, loss_by_removal),
        // GA-S2 of arXiv 2512.20569, the paper's rule.
        ranking_rule("kl_guided", restored_layer_scorer(), restored_layer, score_of),
        // GR-S2 and AVG-S2 of the same paper.
        ranking_rule("kl_guided_removal", removed_layer_scorer(), removed_layer, loss_by_removal),
        layer_rule("kl_guided_average", restored_and_removed_scorer(), minus_mean_of_places),
        // GA-S1 and GR-S1: by the error of the hidden states instead.
        ranking_rule("hidden_state_addition", aligned_restored_layer_scorer(), restored_layer,
                     minus("hidden_state_error")),
        ranking_rule("hidden_state_removal", aligned_removed_layer_scorer(), removed_layer,
                     measured_as("hidden_state_error")),
        ranking_rule("aligned_addition", aligned_restored_layer_scorer(), restored_layer, minus("kl")),
        // PPL.
        ranking_rule("perplexity", aligned_removed_layer_scorer(), removed_layer, measured_as("loss")),
        // Zebra-Llama's SMART, arXiv 2505.17272.
        nearly_uniform_rule("smart", aligned_restored_layer_scorer()),
        // arXiv 2601.22156; C is the accuracy of next tokens in place of its multiple-choice tasks.
        that_asks(layer_rule("halo", aligned_removed_layer_scorer(), recall_over_accuracy)),
        // The rise of the answers' loss (arXiv 2606.27791), and AR.
        that_asks(ranking_rule("ablation", ablated_layer_scorer(), ablated_layer, measured_as("recall_loss"))),
        that_asks(ranking_rule("ablation_accuracy", ablated_layer_scorer(), ablated_layer, minus("recall"))),
    };
}

}  // namespace amalgam
