// SPDX-License-Identifier: Apache-2.0
// What the select stage decides, and its file selection.h5 (contents in outputs/README.md).
#pragma once

#include <filesystem>
#include <optional>

#include "job/job.h"
#include "rules/kept_curve.h"
#include "system/provenance.h"

namespace amalgam {

struct Selection {
    std::string rule;
    std::string options;                 // of the rule, for people: `budget: "25%", seed: 3`
    std::vector<int64_t> order;          // layers that keep softmax, best first
    Layout layout;                       // of the student, with softmax in these layers
    std::vector<CurvePoint> curve = {};  // of the rule's order, if it was measured for more than two numbers of layers

    std::vector<int64_t> layers() const { return softmax_layers(layout); }
};

/// By the job's rule, for a student of `layers` layers. `scored`: all candidates of the rule's scorer; empty for rules
/// that need none. Throws Error(bad_input, damaged_file): rules/selection_rule.h,
/// and Error(diverged) if a score is not finite.
Selection select_layers(const SelectJob& job, int64_t layers, const std::string& mixer,
                        const std::vector<ScoredCandidate>& scored);

void write_selection(const std::filesystem::path& path, const Selection& selection, const Provenance& provenance);

/// Throws Error(damaged_file).
Selection read_selection(const std::filesystem::path& path);

/// What every number of kept layers costs, for people: a line each, that of the chosen number marked.
std::string table_of_curve(const Selection& selection);

/// The selection that runs of earlier versions kept in scores.h5, if `scores` holds one; `mixer`: of the linear layers,
/// which these files do not name. Throws Error(damaged_file).
std::optional<Selection> selection_in_scores(const std::filesystem::path& scores, const std::string& mixer);

}  // namespace amalgam
