// SPDX-License-Identifier: Apache-2.0
#include "stages/stages.h"

#include <cmath>

#include "evaluation/evaluation_file.h"
#include "exports/formats.h"
#include "exports/whole_export.h"
#include "job/training_plan.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

bool always(const Run&) {
    return true;
}

constexpr int64_t looked_through_bytes = int64_t{1} << 30;  // of a checkpoint: about a second

/// All these look at what is there, and throw Error(damaged_file, diverged) for a file that is no result.
bool trained(const Run& run, const char* stage) {
    const StageCheckpoints files = run.checkpoints(stage);
    if (!files.is_finished()) return false;
    files.open(files.finished())->look_through(looked_through_bytes);
    return true;
}

bool scored(const Run& run) {
    if (!std::filesystem::exists(run.scores_file())) return false;
    for (const ScoredCandidate& one : read_scores(run.scores_file(), run.job.student.mixer).scored())
        if (!std::isfinite(one.score))
            throw Error(text(run.scores_file().string(), ": ", describe(one.candidate), " has the score ", one.score,
                             " (a candidate that diverged cannot be ranked); remove the file and selection.h5 to score "
                             "it again, or lower score.optimizer.learning_rate in a run of another name"),
                        ExitCode::diverged);
    return true;
}

bool selected(const Run& run) {
    if (!std::filesystem::exists(run.selection_file())) return false;
    read_selection(run.selection_file());
    return true;
}

bool evaluated(const Run& run) {
    if (!std::filesystem::exists(run.evaluation_file())) return false;
    look_through_evaluation(run.evaluation_file());
    return true;
}

/// An export is made again from the checkpoint in no time.
bool exported(const Run& run) {
    bool all = true;
    for (const std::string& format : run.job.export_to.formats) {
        const std::filesystem::path folder = run.folder / find_export_format(format).folder();
        if (!std::filesystem::exists(folder / "config.json")) {
            all = false;
            continue;
        }
        const std::string missing = missing_in_export(folder, run.job.teacher.path);
        if (missing.empty()) continue;
        warn(text(missing, "; the export is made again"));
        all = false;
    }
    return all;
}

using Names = std::vector<std::string>;

bool aligns(const Run& run) {
    return run.job.align.tokens > 0;
}
bool finetunes(const Run& run) {
    return run.job.finetune.tokens > 0;
}
bool scores(const Run& run) {
    return has_score_stage(run.job);
}

Names nothing(const Run&) {
    return {};
}
std::string all_linear(const Run& run) {
    return aligns(run) ? "align" : "transfer";
}
Names student(const Run& run) {
    return {finetunes(run) ? "finetune" : "distill"};
}

}  // namespace

const std::vector<Stage>& pipeline_stages() {
    static const std::vector<Stage> stages = {
        {.name = "transfer",
         .wanted = always,
         .done = [](const Run& r) { return trained(r, "transfer"); },
         .execute = transfer,
         .reads = nothing},
        {.name = "align",
         .wanted = aligns,
         .done = [](const Run& r) { return trained(r, "align"); },
         .execute = align,
         .reads = [](const Run&) { return Names{"transfer"}; },
         .makes_anew = true},
        {.name = "score",
         .wanted = scores,
         .done = scored,
         .execute = score,
         .reads = [](const Run& r) { return Names{all_linear(r)}; },
         .makes_anew = true},
        {.name = "select",
         .wanted = always,
         .done = selected,
         .execute = select,
         .reads = [](const Run& r) { return scores(r) ? Names{"score"} : Names{}; },
         .is_for_people = true},
        {.name = "distill",
         .wanted = always,
         .done = [](const Run& r) { return trained(r, "distill"); },
         .execute = distill,
         .reads =
             [](const Run& r) {
                 return Names{all_linear(r), "select"};
             },
         .makes_anew = true},
        {.name = "finetune",
         .wanted = finetunes,
         .done = [](const Run& r) { return trained(r, "finetune"); },
         .execute = finetune,
         .reads = [](const Run&) { return Names{"distill"}; },
         .makes_anew = true},
        {.name = "evaluate",
         .wanted = [](const Run& r) { return r.job.evaluate.sequences > 0; },
         .done = evaluated,
         .execute = evaluate,
         .reads = student,
         .is_for_people = true},
        {.name = "export",
         .wanted = [](const Run& r) { return !r.job.export_to.formats.empty(); },
         .done = exported,
         .execute = export_student,
         .reads = student,
         .is_for_people = true},
    };
    return stages;
}

}  // namespace amalgam
