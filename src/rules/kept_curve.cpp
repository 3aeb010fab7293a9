// SPDX-License-Identifier: Apache-2.0
#include "rules/kept_curve.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "rules/budget.h"
#include "system/error.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using Scored = std::vector<ScoredCandidate>;

std::optional<double> if_measured(const ScoredCandidate& one, const std::string& name) {
    const auto found = one.measured.find(name);
    return found == one.measured.end() ? std::nullopt : std::optional(found->second);
}

double number(const ScoredCandidate& one, const std::string& name) {
    return if_measured(one, name).value_or(std::numeric_limits<double>::quiet_NaN());
}

/// The candidate that keeps just the first `count` layers of `order`; null if it was not measured.
const ScoredCandidate* with_first(const Layers& order, int64_t count, const Scored& scored) {
    Layers kept(order.begin(), order.begin() + count);
    std::sort(kept.begin(), kept.end());
    for (const ScoredCandidate& one : scored) {
        const Layout& layout = one.candidate.layout;
        const bool is_ablated = std::find(layout.begin(), layout.end(), ablated_mixer) != layout.end();
        if (!is_ablated && softmax_layers(layout) == kept) return &one;
    }
    return nullptr;
}

std::vector<std::string> problems(const Options& options, std::optional<int64_t>) {
    const auto recall = option<double>(options, "recall_at_least"), kl = option<double>(options, "kl_at_most");
    if (is_automatic(options) && recall == 0.0 && kl == 0.0)
        return {
            "select.budget is auto but there is no bound (how much may be lost?) give select.recall_at_least, "
            "select.kl_at_most or both"};
    if (!is_automatic(options) && (recall > 0.0 || kl > 0.0))
        return {text("select.", recall > 0.0 ? "recall_at_least" : "kl_at_most", " is given but select.budget is ",
                     option<std::string>(options, "budget"),
                     " (a bound decides only where the budget is open) set select.budget: auto, or remove it")};
    return {};
}

std::optional<int64_t> kept(const Options& options, int64_t layers) {
    if (is_automatic(options)) return std::nullopt;
    return kept_by_budget(options, layers);
}

}  // namespace

std::vector<CurvePoint> curve_of(const Layers& order, const Scored& scored) {
    std::vector<CurvePoint> curve;
    for (int64_t count = 0; count <= int64_t(order.size()); ++count)
        if (const ScoredCandidate* one = with_first(order, count, scored))
            curve.push_back({.kept = count,
                             .kl = number(*one, "kl"),
                             .recall_kl = number(*one, "recall_kl"),
                             .recall = number(*one, "recall"),
                             .far_kl = if_measured(*one, "far_kl")});
    return curve;
}

int64_t fewest_that_reach(const Options& options, int64_t layers, const std::vector<CurvePoint>& curve) {
    if (int64_t(curve.size()) != layers + 1)
        throw Error(text("scores: ", curve.size(), " of ", layers + 1,
                         " numbers of kept layers were measured (select.budget: auto needs all)"),
                    ExitCode::damaged_file);
    const auto recall = option<double>(options, "recall_at_least"), kl = option<double>(options, "kl_at_most");
    const double of_teacher = curve.back().recall;
    if (recall > 0.0)
        require(
            of_teacher > 0.0,
            "select.recall_at_least: the teacher answers none of score.recall's questions right (a share of nothing "
            "is no bound) ask shorter or other ones, or give select.kl_at_most");
    int64_t count = layers;
    const auto reaches = [&](const CurvePoint& point) {
        return (recall == 0.0 || point.recall >= recall * of_teacher) && (kl == 0.0 || point.kl <= kl);
    };
    while (count > 0 && reaches(curve[size_t(count) - 1])) --count;
    return count;
}

bool measures_curve(const SelectionRule& rule, const Options& options) {
    return rule.order != nullptr && (rule.scorer->trains_gates || is_automatic(options));
}

std::vector<Candidate> next_candidates(const SelectionRule& rule, const ScoresSoFar& so_far) {
    std::vector<Candidate> next = rule.scorer->next(so_far);
    if (!next.empty() || !measures_curve(rule, so_far.options)) return next;
    const Layers order = rule.order(so_far.layers, so_far.scored);
    for (int64_t count = so_far.layers; count >= 0; --count)
        if (!with_first(order, count, so_far.scored))
            next.push_back({keep_softmax(so_far.layers, so_far.mixer, {order.begin(), order.begin() + count}), {}});
    return next;
}

int64_t most_candidates(const SelectionRule& rule, const ScoresSoFar& so_far) {
    const bool more = !rule.scorer->trains_gates && measures_curve(rule, so_far.options);
    return rule.scorer->count(so_far) + (more ? so_far.layers + 1 : 0);
}

SelectionRule ordered_rule(const std::string& name, const Scorer& scorer, decltype(SelectionRule::order) order) {
    const Option recall = {
        .name = "recall_at_least",
        .default_value = 0.0,
        .unit = "",
        .description = "budget auto: of the teacher's recall of score.recall's questions; 0: no bound",
        .range = {.low = 0, .high = 1}};
    const Option kl = {.name = "kl_at_most",
                       .default_value = 0.0,
                       .unit = "nat/token",
                       .description = "budget auto: KL of text; 0: no bound",
                       .range = {.low = 0}};
    return {.name = name,
            .options = {budget_option(), recall, kl},
            .scorer = &scorer,
            .kept = kept,
            .problems = problems,
            .order = order,
            .choose = [order](const Options& options, int64_t layers, const Scored& scored) {
                Layers first = order(layers, scored);
                const int64_t count = is_automatic(options)
                                          ? fewest_that_reach(options, layers, curve_of(first, scored))
                                          : kept_by_budget(options, layers);
                first.resize(size_t(count));
                return first;
            }};
}

}  // namespace amalgam
