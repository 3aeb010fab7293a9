// SPDX-License-Identifier: Apache-2.0
// Which layers of the student keep softmax attention. A rule is a pure function of its job keys and of the scores of
// candidates, in a file of its own; the table of all rules is selection_rule.cpp. Job files, checks and the stages read
// the table and name no rule.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "options/options.h"
#include "rules/scorers.h"

namespace amalgam {

struct SelectionRule {
    std::string name;  // as select.rule
    /// Its keys, select.NAME. Rules that share a key declare it alike.
    std::vector<Option> options;
    /// By whose scores it chooses; null: by none, and the score stage is left out.
    const Scorer* scorer = nullptr;
    /// Does it choose by what candidates recall? score.recall.questions must then ask something.
    bool needs_recall = false;

    /// How many layers of a student with `layers` layers will keep softmax; nothing: the scores decide that, too.
    /// Throws Error(bad_input) if an option cannot be read, or does not fit.
    std::function<std::optional<int64_t>(const Options& options, int64_t layers)> kept;

    /// What else is wrong with its options, each a sentence for people. The number of layers may not be known.
    std::vector<std::string> (*problems)(const Options& options, std::optional<int64_t> layers) =
        [](const Options&, std::optional<int64_t>) { return std::vector<std::string>(); };

    /// What it found of every layer, by layer, larger for those that it would rather keep, of rules that judge layers
    /// one by one; null: of others. `scored` as for `choose`.
    std::function<std::vector<double>(int64_t layers, const std::vector<ScoredCandidate>& scored)> importance = nullptr;

    /// All layers, the one that is kept to the end first, of rules that keep the first ones of one order whatever the
    /// budget (kept_curve.h); null: of others. `scored` are all candidates of its scorer, and maybe more.
    std::function<std::vector<int64_t>(int64_t layers, const std::vector<ScoredCandidate>& scored)> order = nullptr;

    /// The layers that keep softmax, best first. `scored` are all candidates of its scorer, or empty. Throws
    /// Error(damaged_file) if scores that it needs are missing among them.
    std::function<std::vector<int64_t>(const Options& options, int64_t layers,
                                       const std::vector<ScoredCandidate>& scored)>
        choose;
};

/// All rules; the first is the default.
const std::vector<SelectionRule>& selection_rules();

/// Throws Error(bad_input) if there is none of that name.
const SelectionRule& selection_rule(const std::string& name);

/// Every key of the rules once, in their order. Two different declarations of one key are a mistake in the program
/// (std::logic_error).
std::vector<Option> options_of(const std::vector<SelectionRule>& rules);

}  // namespace amalgam
