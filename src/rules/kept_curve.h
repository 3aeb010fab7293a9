// SPDX-License-Identifier: Apache-2.0
// What is lost with every number of kept layers, of rules that have one order of layers for all budgets: the models of
// the first k layers of the order, for k from all of them to none, as they are measured without distillation. And how
// many layers `budget: auto` keeps by it.
#pragma once

#include "rules/selection_rule.h"

namespace amalgam {

struct CurvePoint {
    int64_t kept = 0;                   // softmax layers
    double kl = 0.0;                    // of text, nat/token
    double recall_kl = 0.0;             // of answers, nat/token; NaN if nothing was asked
    double recall = 0.0;                // share of questions that are answered right; likewise
    double cache_bytes = 0.0;           // of a token of a sequence: keys and values of the kept layers
    std::optional<double> far_kl = {};  // of tokens that need far context; nothing: they had no weight
    bool operator==(const CurvePoint&) const = default;
};

/// The points that were measured, by number of kept layers.
std::vector<CurvePoint> curve_of(const std::vector<int64_t>& order, const std::vector<ScoredCandidate>& scored);

/// The fewest layers such that they, and any larger number, reach the bounds of `options`: select.recall_at_least of
/// the teacher's recall, select.kl_at_most. Throws Error(damaged_file) if the curve has gaps, Error(bad_input) if the
/// teacher recalls nothing.
int64_t fewest_that_reach(const Options& options, int64_t layers, const std::vector<CurvePoint>& curve);

/// Are all points of the curve measured for a rule with these options? (Else some may be.)
bool measures_curve(const SelectionRule& rule, const Options& options);

/// What is to be measured next for a rule: the candidates of its scorer, then those of the curve that are missing.
std::vector<Candidate> next_candidates(const SelectionRule& rule, const ScoresSoFar& so_far);
/// How many there will be, at most.
int64_t most_candidates(const SelectionRule& rule, const ScoresSoFar& so_far);

/// A rule that keeps the first layers of one order: as many as its budget says, or as few as reach its bounds.
/// `scorer`: one that does not distil its candidates.
SelectionRule ordered_rule(const std::string& name, const Scorer& scorer, decltype(SelectionRule::order) order);

}  // namespace amalgam
