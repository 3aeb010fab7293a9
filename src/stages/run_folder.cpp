// SPDX-License-Identifier: Apache-2.0
#include "stages/run_folder.h"

#include <filesystem>

#include "evaluation/kept_answers.h"
#include "exports/formats.h"
#include "exports/whole_export.h"
#include "job/job_writer.h"
#include "job/training_plan.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "stages/job_comparison.h"
#include "stages/reuse.h"
#include "stages/run_inputs.h"
#include "stages/run_record.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

bool has_results(const fs::path& folder, const std::string& except = "") {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (entry.path().extension() == ".h5" && entry.path().filename() != except) return true;
    return false;
}

/// Of whatever stage, or a part of one. Without any the folder may become that of another job.
bool has_any_result(const fs::path& folder) {
    if (has_results(folder) || has_results(kept_answers_folder(folder)) || !exports_in(folder).empty()) return true;
    for (const char* sub : {"checkpoints", "candidates", "learning_rates"})
        if (has_results(folder / sub)) return true;
    return false;
}

/// Were results made of the inputs of this key?
bool is_used(const Job& job, const std::string& key) {
    const fs::path folder = job.run_folder();
    const bool scored = has_results(folder / "candidates") || fs::exists(folder / "scores.h5");
    const bool evaluated = fs::exists(folder / "evaluation.h5");
    if (key == "teacher.path" || key == "student.start") return has_results(folder / "checkpoints");
    if (key == "data.training") return scored || has_results(folder / "checkpoints", "transfer.h5");
    const bool worded = trains_on_questions(job.align) || trains_on_questions(job.distill) ||
                        trains_on_questions(job.finetune);  // by what the file has of questions
    if (key == "data.validation")
        return scored || evaluated || (worded && has_results(folder / "checkpoints", "transfer.h5"));
    if (key == "evaluate.requests") return evaluated;
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (fs::exists(entry.path() / "config.json")) return true;  // an export
    return false;
}

void expect_same_inputs(const Job& job, const std::vector<InputFile>& before, const std::vector<InputFile>& now) {
    std::string used;
    for (const std::string& key : input_keys()) {
        const std::string changed = difference(before, now, key);
        if (changed.empty()) continue;
        if (is_used(job, key))
            used += changed;
        else
            info(text("an input has changed since the run began, before anything was made of it:", changed));
    }
    require(used.empty(), job.run_folder(),
            ": inputs have changed since results were made of them (the rest would be made of others, and no number "
            "would mean anything); restore them, or choose another name for the run:",
            used);
}

/// Runs of earlier versions have their selection in scores.h5: it gets the file that it has now.
void give_selection_its_file(const Job& job) {
    const fs::path scores = fs::path(job.run_folder()) / "scores.h5",
                   file = fs::path(job.run_folder()) / "selection.h5";
    if (!fs::exists(scores) || fs::exists(file)) return;
    const auto selection = selection_in_scores(scores, job.student.mixer);
    if (!selection) return;
    write_selection(file, *selection, provenance_of(job));
    info(text(file.string(), ": written from ", scores.string(),
              ", where an earlier version of the program had put the selection"));
}

struct RunSoFar {
    bool is_of_another_job = false;                   // which made nothing
    std::optional<std::vector<InputFile>> made_from;  // none: a new folder, or an earlier version's
};

/// Throws Error(bad_input) if the folder holds results of another job or of other inputs, Error(damaged_file). Changes
/// nothing.
RunSoFar expect_same_job(const Job& job, const std::vector<InputFile>& inputs) {
    const fs::path folder = job.run_folder(), job_file = folder / "job.yaml";
    RunSoFar run;
    if (!fs::exists(job_file)) return run;
    run.made_from = read_inputs(folder);
    const auto& made_from = run.made_from;
    Job before = with_paths_of(job, read_record(job_file), [&](const std::string& key) {
        return made_from && (!is_used(job, key) || is_same(*made_from, inputs, key));
    });
    if (!fs::exists(folder / "evaluation.h5")) before.evaluate = job.evaluate;  // nothing depends on it yet
    before.export_to.formats = job.export_to.formats;  // each has a folder of its own, which is there or not
    if (exports_in(folder).empty()) before.export_to = job.export_to;
    const std::string differs = difference(comparable(before), comparable(job));
    run.is_of_another_job = !differs.empty() && !has_any_result(folder);
    require(differs.empty() || run.is_of_another_job, folder.string(),
            " holds a run of another job (results would be mixed); choose another name or remove the folder:", differs);
    if (run.is_of_another_job)
        info(text(folder.string(), ": the job has changed since the run began, before it made anything:", differs));
    const std::string other_bits = job.deterministic ? difference_in_bits(before, job) : "";
    if (!other_bits.empty() && is_used(job, "data.training"))
        warn(text(folder.string(),
                  ": goes on with other bits than a run without this change has (deterministic: true):", other_bits));
    if (!made_from && is_used(job, "teacher.path"))
        warn(text(folder.string(),
                  ": does not say what it was made from (an earlier version of the program began "
                  "the run); its inputs are taken for unchanged"));
    if (made_from) expect_same_inputs(job, *made_from, inputs);
    return run;
}

void remove_left(const fs::path& file) {
    std::error_code failed;
    fs::remove(file, failed);
    if (failed)
        throw Error(text(file.string(), ": cannot be removed: ", failed.message(), " (the run could not write either)"),
                    ExitCode::storage);
}

}  // namespace

void open_run_folder(const Job& job) {
    const fs::path folder = job.run_folder(), job_file = folder / "job.yaml";
    std::error_code failed;
    for (const char* sub : {"checkpoints", "candidates", "learning_rates"})
        fs::create_directories(folder / sub, failed);
    if (failed) throw Error(text(folder.string(), ": cannot be made (", failed.message(), ")"), ExitCode::storage);
    remove_left(folder / "stop");
    std::vector<fs::path> written = {folder, folder / "checkpoints", folder / "candidates", folder / "learning_rates"};
    for (const ExportFormat* format : export_formats())
        if (fs::is_directory(folder / format->folder())) written.push_back(folder / format->folder());
    for (const fs::path& place : written)
        for (const auto& entry : fs::directory_iterator(place))
            if (entry.path().extension() == ".tmp") {
                warn(text(entry.path().string(), ": left by an interrupted write, removed"));
                remove_left(entry.path());
            }
    const std::vector<InputFile> inputs = look_at_input_files(job);
    const RunSoFar run = expect_same_job(job, inputs);
    if (run.is_of_another_job)
        for (const char* of_that_job : {"metrics.csv", "stalled"}) remove_left(folder / of_that_job);
    if (!run.made_from || *run.made_from != inputs) write_inputs(folder, inputs);
    write_record(job_file, job);
    give_selection_its_file(job);
    if (!job.reuse.empty()) take_over(job, inputs);
}

std::vector<std::string> run_folder_problems(const Job& job) {
    std::vector<std::string> problems;
    const auto look = [&](const auto& work) {
        try {
            work();
        } catch (const Error& error) {
            problems.push_back(error.what());
        } catch (const fs::filesystem_error& error) {
            problems.push_back(text(error.path1().string(), ": cannot be read (", error.code().message(), ")"));
        }
    };
    const bool reuses = !job.reuse.empty() && reuse_problem(job).empty();
    look([&] {
        if (!reuses && !fs::exists(job.run_folder() + "/job.yaml")) return;
        const std::vector<InputFile> inputs = look_at_input_files(job);
        look([&] { expect_same_job(job, inputs); });
        if (reuses) look([&] { expect_reusable(job, inputs); });
    });
    return problems;
}

}  // namespace amalgam
