// SPDX-License-Identifier: Apache-2.0
#include "stages/reuse.h"

#include <filesystem>

#include "evaluation/kept_answers.h"
#include "job/job_writer.h"
#include "job/training_plan.h"
#include "rules/kept_curve.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "stages/job_comparison.h"
#include "stages/run_record.h"
#include "system/error.h"
#include "system/log.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

/// Rules may share candidates, and a rule that needs none takes any.
std::string other_candidates(const Job& theirs, const Job& job) {
    const Scorer *had = selection_rule(theirs.select.rule).scorer, *needed = selection_rule(job.select.rule).scorer;
    if (had == nullptr || needed == nullptr) return "";
    if (had != needed)
        return text("\n  select.rule: ", theirs.select.rule, " measures other candidates than ", job.select.rule);
    const SelectionRule &their_rule = selection_rule(theirs.select.rule), &rule = selection_rule(job.select.rule);
    if (measures_curve(rule, job.select.options) && !measures_curve(their_rule, theirs.select.options))
        return text("\n  select.budget: ", job.select.rule, " measures every number of kept layers with auto");
    for (const std::string& name : needed->depends_on)
        if (theirs.select.options.at(name) != job.select.options.at(name))
            return text("\n  select.", name, ": ", job.select.rule, " measures other candidates with another one");
    return "";
}

/// Does nothing if there is none, or one already.
void share(const fs::path& source, const fs::path& target) {
    if (!fs::exists(source) || fs::exists(target)) return;
    std::error_code failed;
    fs::create_hard_link(source, target, failed);  // files are written once: sharing them is safe
    if (failed) fs::copy_file(source, target);
}

/// The teacher answers the same requests alike in every run, and need not be asked again.
void take_over_answers(const fs::path& source, const fs::path& target) {
    const fs::path theirs = source / "evaluation.h5", kept = kept_answers_folder(target);
    if (!fs::exists(theirs) || fs::exists(kept) || fs::exists(target / "evaluation.h5")) return;
    const int64_t answers = keep_evaluated_answers(theirs, {kept, "teacher"});
    if (answers > 0)
        info(text("reuse: the teacher's answers to ", answers, " requests are those of ", theirs.string()));
}

}  // namespace

std::string Reused::changed(const std::vector<InputFile>& inputs, const std::string& key) const {
    return made_from ? difference(*made_from, inputs, key) : std::string();
}

std::string reuse_problem(const Job& job) {
    if (job.reuse.empty()) return "";
    const fs::path source = job.reuse, transferred = "checkpoints/transfer.h5";
    const std::string wanted = "; give the folder of a run, OUTPUT/NAME, or leave reuse empty";
    if (!fs::is_directory(source))
        return text("reuse: ", job.reuse, " is not a folder (nothing can be taken over)", wanted);
    if (!fs::exists(source / "job.yaml"))
        return text("reuse: ", job.reuse, " holds no run: it has no job.yaml (nothing can be taken over)", wanted);
    if (!fs::exists(source / transferred) && !fs::exists(job.run_folder() / transferred))
        return text("reuse: ", job.reuse, " has not finished its first stage: ", (source / transferred).string(),
                    " is not there (nothing can be taken over); wait for it, or leave reuse empty");
    return "";
}

Reused expect_reusable(const Job& job, const std::vector<InputFile>& inputs) {
    const fs::path source = job.reuse;
    const std::string problem = reuse_problem(job);
    require(problem.empty(), problem);
    Reused reused;
    reused.made_from = read_inputs(source);
    const auto& made_from = reused.made_from;
    const auto changed = [&](const std::string& key) { return reused.changed(inputs, key); };
    // What validation files hold is compared below, where it matters.
    reused.job = with_paths_of(job, read_record(source / "job.yaml"), [&](const std::string& key) {
        return made_from && (key == "data.validation" || is_same(*made_from, inputs, key));
    });
    const std::string differs = difference(up_to_align(reused.job), up_to_align(job));
    require(differs.empty(), "reuse: ", source.string(),
            " was made by another job (its results would not be this job's):", differs);
    if (!made_from)
        warn(text("reuse: ", source.string(),
                  " does not say what it was made from (an earlier version wrote it); its inputs are taken for "
                  "unchanged"));
    const std::string other = changed("teacher.path") + changed("data.training") + changed("student.start") +
                              (trains_on_questions(job.align) ? changed("data.validation") : "");
    require(other.empty(), "reuse: ", source.string(),
            " was made from other inputs (its results would be mixed with those of these); restore them, or run "
            "without reuse:",
            other);
    return reused;
}

void take_over(const Job& job, const std::vector<InputFile>& inputs) {
    const fs::path source = job.reuse, target = job.run_folder();
    const Reused reused = expect_reusable(job, inputs);
    const Job& theirs = reused.job;
    const auto changed = [&](const std::string& key) { return reused.changed(inputs, key); };
    for (const char* file : {"checkpoints/transfer.h5", "checkpoints/align.h5", "learning_rates/align.h5"})
        share(source / file, target / file);
    if (!job.evaluate.requests.empty() && changed("evaluate.requests").empty()) take_over_answers(source, target);
    if (!fs::exists(source / "scores.h5") || fs::exists(target / "scores.h5")) return;
    // Scores of layers that were aligned, and removed since, do not fit to others.
    const bool of_others = job.align.tokens > 0 && !fs::exists(target / "checkpoints/align.h5");
    const std::string scored_otherwise = (of_others ? "\n  checkpoints/align.h5: is not there any more" : "") +
                                         difference(up_to_scores(theirs), up_to_scores(job)) +
                                         changed("data.validation") + other_candidates(theirs, job);
    if (!scored_otherwise.empty()) {
        info(text("reuse: the scores of ", source.string(),
                  " are not taken (this job scores in another way):", scored_otherwise));
        return;
    }
    share(source / "learning_rates/score.h5", target / "learning_rates/score.h5");
    if (!selection_in_scores(source / "scores.h5", job.student.mixer))
        return share(source / "scores.h5", target / "scores.h5");
    // Made by an earlier version: the selection in it is the other run's, and must not be taken for this one's.
    const ScoreTable table = read_scores(source / "scores.h5", job.student.mixer);
    if (!table.candidates.empty()) write_scores(target / "scores.h5", table, provenance_of(job));
}

}  // namespace amalgam
