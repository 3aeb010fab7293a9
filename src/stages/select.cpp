// SPDX-License-Identifier: Apache-2.0
// Select: the layers that keep softmax attention, written into selection.h5.
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "evaluation/statistics.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

/// Candidates with their held-out KL, that of the most important layer first, or the layers' gates where they decide;
/// those of a kept layer are marked.
std::string table_of(const ScoreTable& table, const Selection& selection) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(4);
    if (table.gates) {
        for (const int64_t layer : table.gates->order())
            out << "\n  " << (selection.layout.at(size_t(layer)) == softmax_mixer ? "*" : " ") << " layer "
                << std::setw(3) << layer << "  gate " << table.gates->latest()[size_t(layer)];
        return out.str();
    }
    for (const size_t place : by_importance(table.scored())) {
        const CandidateResult& result = table.candidates[place];
        const auto restored = restored_layer(result.candidate);
        const auto layer = restored ? restored : removed_layer(result.candidate);
        const bool kept = layer && selection.layout.at(size_t(*layer)) == softmax_mixer;
        const auto kl = mean_and_error(result.kl.back());
        out << "\n  " << (kept ? "*" : " ") << " " << in_column(result.candidate) << "  KL " << kl.mean << " +- "
            << kl.standard_error;
    }
    return out.str();
}

}  // namespace

StageOutcome select(Run& run) {
    const SelectJob& job = run.job.select;
    const int64_t layers = run.teacher_config().layers;  // collective
    run.world.on_root([&] {
        ScoreTable table;
        if (std::filesystem::exists(run.scores_file())) table = read_scores(run.scores_file(), run.job.student.mixer);
        const Selection selection = select_layers(job, layers, run.job.student.mixer, table.scored());
        write_selection(run.selection_file(), selection, run.provenance());
        info(text("select (", selection.rule, "): ", describe(selection.layout),
                  table.candidates.size() > size_t(2 * layers) || table.candidates.empty()
                      ? ""
                      : table_of(table, selection)));
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
