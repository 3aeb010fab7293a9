// SPDX-License-Identifier: Apache-2.0
#include "stages/run_folder.h"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "evaluation/kept_answers.h"
#include "exports/formats.h"
#include "job/job_reader.h"
#include "job/job_schema.h"
#include "job/job_writer.h"
#include "job/training_plan.h"
#include "rules/kept_curve.h"
#include "selection/score_file.h"
#include "selection/selection.h"
#include "stages/run_inputs.h"
#include "storage/write_once.h"
#include "system/error.h"
#include "system/log.h"
#include "system/sha256.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;

using TrainingStages = std::initializer_list<TrainingJob*>;

template <class Change>
void change_micro_batches(Job& job, const Change& change) {
    for (TrainingJob* stage : TrainingStages{&job.align, &job.score, &job.distill, &job.finetune}) {
        stage->micro_batch_sequences = change(stage->micro_batch_sequences);
        for (TrainingPhase& phase : stage->phases) phase.micro_batch_sequences = change(phase.micro_batch_sequences);
    }
}

/// Without the keys that do not change a bit of what is computed.
Job without_means(Job job) {
    const Job defaults;
    job.name = defaults.name;
    job.output = defaults.output;
    job.reuse = defaults.reuse;
    job.walltime = defaults.walltime;
    job.log_every_steps = defaults.log_every_steps;
    job.peak_flops = defaults.peak_flops;
    job.data.allow_other_tokenizer = defaults.data.allow_other_tokenizer;
    job.checkpoint = defaults.checkpoint;
    job.deadlines = defaults.deadlines;
    job.max_skipped_updates = defaults.max_skipped_updates;
    job.score.ranks_per_candidate = defaults.score.ranks_per_candidate;
    const int64_t context = job.sharding.context;
    job.sharding = defaults.sharding;
    job.sharding.context = context;
    job.score.candidates_in_step = defaults.score.candidates_in_step;
    job.score.teacher_cache_gib = defaults.score.teacher_cache_gib;
    return job;
}

/// Without all keys that may change when a run is started again: those that say how the work is divided change results
/// by their rounding alone, and somebody whose memory is too small must be able to change them.
Job comparable(Job job) {
    job = without_means(job);
    const Job defaults;
    job.threads_per_rank = defaults.threads_per_rank;
    job.sharding.context = defaults.sharding.context;
    change_micro_batches(job, [](int64_t) { return int64_t{0}; });
    for (int64_t* chunk : {&job.score.loss_chunk_tokens, &job.distill.loss_chunk_tokens,
                           &job.finetune.loss_chunk_tokens, &job.evaluate.loss_chunk_tokens})
        *chunk = 0;
    return job;
}

/// What transfer, align and score depend on.
Job up_to_scores(Job job) {
    job = comparable(job);
    const Job defaults;
    job.select = defaults.select;
    job.distill = defaults.distill;
    job.finetune = defaults.finetune;
    job.evaluate = defaults.evaluate;
    job.export_to = defaults.export_to;
    return job;
}

/// What transfer and align depend on.
Job up_to_align(Job job) {
    job = up_to_scores(job);
    job.score = Job().score;
    return job;
}

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

/// The keys in which two resolved jobs differ, for a message.
std::string difference(const Job& before, const Job& now) {
    std::string result;
    for (const JobKey& key : job_schema()) {
        const std::string none = "not there";
        const std::string was = key.is_in(before) ? yaml_value(before, key) : none,
                          is = key.is_in(now) ? yaml_value(now, key) : none;
        if (was != is) result += text("\n  ", key.path, ": was ", was, ", now ", is);
    }
    return result;
}

/// Deterministic jobs promise the same bits only for the same values of these (README): a run goes on with others, but
/// does not end where it would have ended.
void warn_of_other_bits(const Job& before, const Job& now, const fs::path& folder) {
    if (!now.deterministic) return;
    const auto bits = [](const Job& job) {
        Job these = without_means(job);
        these.threads_per_rank = std::max<int64_t>(1, job.threads_per_rank);
        // Micro-batches that are not given are one sequence, but those of gates.
        change_micro_batches(these, [](int64_t sequences) { return std::max<int64_t>(1, sequences); });
        if (gates_are_trained(job)) these.score.micro_batch_sequences = gate_micro_batch(job.score);
        return these;
    };
    const std::string differs = difference(bits(before), bits(now));
    if (!differs.empty())
        warn(text(folder.string(),
                  ": goes on with other bits than a run without this change has (deterministic: true):", differs));
}

/// Is the student there in any format?
bool is_exported(const fs::path& folder) {
    for (const ExportFormat* format : export_formats())
        if (fs::exists(folder / format->folder() / "config.json")) return true;
    return false;
}

Provenance provenance_of(const Job& job) {
    Provenance who = provenance();
    who.job = to_yaml(job);
    return who;
}

/// Does nothing if there is none, or one already.
void share(const fs::path& source, const fs::path& target) {
    if (!fs::exists(source) || fs::exists(target)) return;
    std::error_code failed;
    fs::create_hard_link(source, target, failed);  // files are written once: sharing them is safe
    if (failed) fs::copy_file(source, target);
}

const std::string seal = "# SHA-256 of the lines above: ";

void write_record(const fs::path& path, const Job& job) {
    const std::string lines = to_yaml(job);
    write_text_once(path, lines + seal + sha256(lines) + "\n");
}

/// A run's own job.yaml. A part of it would look like another job. Runs of earlier versions have no seal.
Job read_record(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
    const size_t end = all.rfind(seal);
    const bool sealed = end != std::string::npos && all.substr(end) == seal + sha256(all.substr(0, end)) + "\n";
    const bool earlier = end == std::string::npos && !all.empty() && !fs::exists(path.parent_path() / "inputs.json");
    if (!sealed && !earlier)
        throw Error(text(path.string(),
                         ": is damaged or was edited (it is the record of what the run is made by); "
                         "restore it, or remove it if you are sure that your job file is the same: it is then written "
                         "again"),
                    ExitCode::damaged_file);
    return read_resolved_job(path);
}

bool has_results(const fs::path& folder, const std::string& except = "") {
    std::error_code ignored;
    for (const auto& entry : fs::directory_iterator(folder, ignored))
        if (entry.path().extension() == ".h5" && entry.path().filename() != except) return true;
    return false;
}

/// Of whatever stage, or a part of one. Without any the folder may become that of another job.
bool has_any_result(const fs::path& folder) {
    if (has_results(folder) || has_results(kept_answers_folder(folder)) || is_exported(folder)) return true;
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

/// The teacher answers the same requests alike in every run, and need not be asked again.
void take_over_answers(const fs::path& source, const fs::path& target) {
    const fs::path theirs = source / "evaluation.h5", kept = kept_answers_folder(target);
    if (!fs::exists(theirs) || fs::exists(kept) || fs::exists(target / "evaluation.h5")) return;
    const int64_t answers = keep_evaluated_answers(theirs, {kept, "teacher"});
    if (answers > 0)
        info(text("reuse: the teacher's answers to ", answers, " requests are those of ", theirs.string()));
}

/// Another run that a job reuses.
struct Reused {
    Job job;  // with this job's paths to the same inputs
    std::optional<std::vector<InputFile>> made_from;

    std::string changed(const std::vector<InputFile>& inputs, const std::string& key) const {
        return made_from ? difference(*made_from, inputs, key) : std::string();
    }
};

/// Throws Error(bad_input) if its alignment would not be this job's.
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
    if (!is_exported(folder)) before.export_to = job.export_to;
    const std::string differs = difference(comparable(before), comparable(job));
    run.is_of_another_job = !differs.empty() && !has_any_result(folder);
    require(differs.empty() || run.is_of_another_job, folder.string(),
            " holds a run of another job (results would be mixed); choose another name or remove the folder:", differs);
    if (run.is_of_another_job)
        info(text(folder.string(), ": the job has changed since the run began, before it made anything:", differs));
    if (is_used(job, "data.training")) warn_of_other_bits(before, job, folder);
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

}  // namespace amalgam
