// SPDX-License-Identifier: Apache-2.0
#include "stages/stages.h"

#include "exports/formats.h"

namespace amalgam {
namespace {

bool always(const Run&) {
    return true;
}
bool export_done(const Run& run) {
    for (const std::string& format : run.job.export_to.formats)
        if (!std::filesystem::exists(run.folder / find_export_format(format).folder() / "config.json")) return false;
    return true;
}

}  // namespace

const std::vector<Stage>& pipeline_stages() {
    static const std::vector<Stage> stages = {
        {"transfer", always, [](const Run& r) { return r.checkpoints("transfer").is_finished(); }, transfer},
        {"align", [](const Run& r) { return r.job.align.tokens > 0; },
         [](const Run& r) { return r.checkpoints("align").is_finished(); }, align},
        {"score",
         [](const Run& r) { return r.job.score.tokens > 0 && selection_rule(r.job.select.rule).scorer != nullptr; },
         [](const Run& r) { return std::filesystem::exists(r.scores_file()); }, score},
        {"select", always, [](const Run& r) { return std::filesystem::exists(r.selection_file()); }, select},
        {"distill", always, [](const Run& r) { return r.checkpoints("distill").is_finished(); }, distill},
        {"finetune", [](const Run& r) { return r.job.finetune.tokens > 0; },
         [](const Run& r) { return r.checkpoints("finetune").is_finished(); }, finetune},
        {"evaluate", [](const Run& r) { return r.job.evaluate.sequences > 0; },
         [](const Run& r) { return std::filesystem::exists(r.evaluation_file()); }, evaluate},
        {"export", [](const Run& r) { return !r.job.export_to.formats.empty(); }, export_done, export_student},
    };
    return stages;
}

}  // namespace amalgam
