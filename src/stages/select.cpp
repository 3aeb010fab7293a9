// SPDX-License-Identifier: Apache-2.0
// Select: the layers that keep softmax attention, written into selection.h5.
#include <algorithm>
#include <cmath>
#include <iomanip>
#include <limits>
#include <optional>
#include <sstream>
#include <utility>

#include "evaluation/statistics.h"
#include "rules/budget.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

/// The one layer that was restored, removed or ablated.
std::optional<int64_t> layer_of(const Candidate& candidate) {
    const auto restored = restored_layer(candidate);
    return restored ? restored : removed_layer(candidate);
}

/// Places of candidates, by what the rule found of their layers, as it keeps them: the most important one first, equal
/// ones by layer. By their score if the rule judges no single layers.
std::vector<size_t> in_order_of(const std::vector<double>& importance, const std::vector<ScoredCandidate>& scored) {
    std::vector<size_t> places = by_importance(scored);
    if (importance.empty()) return places;
    const auto rank = [&](size_t place) {
        const auto layer = layer_of(scored[place].candidate);
        return layer ? std::pair(-importance[size_t(*layer)], *layer)
                     : std::pair(std::numeric_limits<double>::infinity(), int64_t{0});
    };
    std::stable_sort(places.begin(), places.end(), [&](size_t a, size_t b) { return rank(a) < rank(b); });
    return places;
}

/// Candidates with their held-out KL, that of the most important layer first, or the layers' gates where they decide;
/// those of a kept layer are marked.
std::string table_of(const ScoreTable& table, const Selection& selection, const SelectionRule& rule) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(4);
    if (table.gates) {
        for (const int64_t layer : table.gates->order())
            out << "\n  " << (selection.layout.at(size_t(layer)) == softmax_mixer ? "*" : " ") << " layer "
                << std::setw(3) << layer << "  gate " << table.gates->latest()[size_t(layer)];
        return out.str();
    }
    const std::vector<ScoredCandidate> scored = table.scored();
    const auto importance =
        rule.importance ? rule.importance(int64_t(selection.layout.size()), scored) : std::vector<double>();
    // The sum with 0 has no sign where a number is rounded to zero: not -0.0000.
    const auto rounded = [](double number) { return std::round(number * 1e4) / 1e4 + 0.0; };
    for (const size_t place : in_order_of(importance, scored)) {
        const CandidateResult& result = table.candidates[place];
        const auto layer = layer_of(result.candidate);
        const bool kept = layer && selection.layout.at(size_t(*layer)) == softmax_mixer;
        const auto kl = mean_and_error(result.kl.back());
        out << "\n  " << (kept ? "*" : " ") << " " << in_column(result.candidate) << "  KL " << kl.mean
            << plus_minus(kl.standard_error);
        if (layer && !importance.empty())
            out << "  importance " << rounded(importance[size_t(*layer)]);
        else if (result.recall_weight > 0 || result.far_weight > 0)
            out << "  score " << rounded(result.score());
    }
    return out.str();
}

/// Of a token of a sequence, in bfloat16, in the first `count` layers of `order`. Those with a sliding window keep no
/// more of a longer sequence.
double key_value_bytes(const ModelConfig& config, const std::vector<int64_t>& order, int64_t count) {
    double bytes = 0.0;
    for (int64_t i = 0; i < count; ++i)
        if (config.window[size_t(order[size_t(i)])] == 0)
            bytes += double(2 * config.key_value_heads * config.head_dim) * 2.0;
    return bytes;
}

/// An automatic budget found nothing that may be converted.
bool keeps_all_for_bounds(const SelectJob& job, const Selection& selection) {
    return measures_curve(selection_rule(job.rule), job.options) && is_automatic(job.options) &&
           selection.order.size() == selection.layout.size();
}

}  // namespace

StageOutcome select(Run& run) {
    const SelectJob& job = run.job.select;
    const SelectionRule& rule = selection_rule(job.rule);
    const ModelConfig& config = run.teacher_config();  // collective
    const int64_t layers = config.layers;
    run.world.on_root([&] {
        ScoreTable table;
        if (std::filesystem::exists(run.scores_file())) table = read_scores(run.scores_file(), run.job.student.mixer);
        Selection selection = select_layers(job, layers, run.job.student.mixer, table.scored());
        for (CurvePoint& point : selection.curve)
            point.cache_bytes = key_value_bytes(config, rule.order(layers, table.scored()), point.kept);
        write_selection(run.selection_file(), selection, run.provenance());
        const bool of_layers = table.gates || (selection.curve.empty() && !table.candidates.empty() &&
                                               table.candidates.size() <= size_t(2 * layers));
        info(text("select (", selection.rule, "): ", describe(selection.layout),
                  of_layers ? table_of(table, selection, rule) : ""));
        if (!selection.curve.empty()) info("select: " + table_of_curve(selection));
        if (keeps_all_for_bounds(job, selection))
            warn(
                "select.budget is auto: no number of softmax layers below all reaches the bounds, so every layer keeps "
                "softmax and the student is the teacher; raise select.kl_at_most or lower select.recall_at_least in a "
                "run of another name, which can take over the scores with reuse");
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
