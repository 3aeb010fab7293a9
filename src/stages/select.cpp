// SPDX-License-Identifier: Apache-2.0
// Select: the layers that keep softmax attention, written into scores.h5.
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "evaluation/statistics.h"
#include "stages/stages.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

/// Layers from the best to the worst with their held-out KL, the kept ones marked.
std::string ranking(const ScoreTable& table, const Selection& selection) {
    std::ostringstream out;
    out << std::fixed << std::setprecision(4);
    for (int64_t layer : rank_layers(table.scores_by_layer())) {
        const auto& candidate = *std::find_if(table.candidates.begin(), table.candidates.end(),
                                              [&](const auto& c) { return c.layer == layer; });
        const auto kl = mean_and_error(candidate.kl.back());
        const bool kept = std::find(selection.layers.begin(), selection.layers.end(), layer) != selection.layers.end();
        out << "\n  " << (kept ? "*" : " ") << " layer " << std::setw(3) << layer << "  KL " << kl.mean << " +- "
            << kl.standard_error;
    }
    return out.str();
}

}  // namespace

StageOutcome select(Run& run) {
    const int64_t layers = run.teacher_config().layers;
    run.world.on_root([&] {
        ScoreTable table;
        if (std::filesystem::exists(run.scores_file())) table = read_scores(run.scores_file());
        table.layers = layers;
        const auto scores = table.candidates.empty() ? std::vector<double>() : table.scores_by_layer();
        table.selection = select_layers(run.job.select, layers, scores);
        write_scores(run.scores_file(), table, run.provenance());
        const Layout layout = keep_softmax(layers, run.job.student.mixer, table.selection->layers);
        info(text("select (", run.job.select.rule, "): ", describe(layout),
                  scores.empty() ? "" : ranking(table, *table.selection)));
    });
    return StageOutcome::finished;
}

}  // namespace amalgam
