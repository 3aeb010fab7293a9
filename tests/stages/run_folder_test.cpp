// SPDX-License-Identifier: Apache-2.0
// Opening run folders: new ones, those of the same job, those of another job, and taking over another run's results.
#include "stages/run_folder.h"

#include <ATen/ATen.h>

#include "../selection/made_up_scores.h"
#include "evaluation/evaluation_file.h"
#include "evaluation/kept_answers.h"
#include "job/job_reader.h"
#include "selection/selection.h"
#include "small_run.h"
#include "storage/hdf5.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::made_up_scores;

class RunFolder : public test::SmallRun {
  protected:
    void expect_refused(const std::function<void(Job&)>& change, std::initializer_list<std::string> parts) {
        Job changed = job;
        change(changed);
        const std::string before = test::content_of(result("job.yaml"));
        expect_error([&] { open_run_folder(changed); }, ExitCode::bad_input, {run_folder().string()});
        expect_error([&] { open_run_folder(changed); }, ExitCode::bad_input, parts);
        EXPECT_EQ(test::content_of(result("job.yaml")), before);
    }
};

TEST_F(RunFolder, a_new_one_gets_the_resolved_job) {
    open_run_folder(job);
    EXPECT_EQ(to_yaml(read_job(result("job.yaml"))), to_yaml(job));
    EXPECT_TRUE(fs::is_directory(result("checkpoints")));
    EXPECT_TRUE(fs::is_directory(result("candidates")));
}

TEST_F(RunFolder, the_same_job_may_open_it_again) {
    open_run_folder(job);
    test::put(result("checkpoints/transfer.h5"), "kept");
    EXPECT_NO_THROW(open_run_folder(job));
    EXPECT_EQ(test::content_of(result("checkpoints/transfer.h5")), "kept");
}

TEST_F(RunFolder, what_does_not_change_results_may_change) {
    open_run_folder(job);
    job.walltime = "01:00:00";
    job.log_every_steps = 50;
    job.threads_per_rank = 2;
    job.checkpoint.every_steps = 7;
    job.checkpoint.keep_last = 3;
    job.score.ranks_per_candidate = 2;
    job.score.teacher_cache_gib = 0.0;
    job.align.micro_batch_sequences = job.finetune.micro_batch_sequences = 1;
    job.score.loss_chunk_tokens = job.finetune.loss_chunk_tokens = job.evaluate.loss_chunk_tokens = 5;
    job.peak_flops = "2e12";
    job.data.allow_other_tokenizer = true;
    EXPECT_NO_THROW(open_run_folder(job));
    EXPECT_EQ(read_job(result("job.yaml")).walltime, "01:00:00") << "the file says what was run last";
}

TEST_F(RunFolder, what_is_evaluated_may_change_until_it_is) {
    open_run_folder(job);
    job.evaluate.requests = "requests.h5";
    EXPECT_NO_THROW(open_run_folder(job));
    test::put(result("evaluation.h5"), "results");
    EXPECT_NO_THROW(open_run_folder(job));
    expect_refused([](Job& j) { j.evaluate.requests = "others.h5"; }, {"evaluate.requests", "others.h5"});
}

TEST_F(RunFolder, what_is_exported_may_change_until_it_is) {
    job.export_to.formats = {"qwen3_5"};
    open_run_folder(job);
    job.export_to.formats = {"fla"};
    job.export_to.precision = ExportPrecision::float32;
    EXPECT_NO_THROW(open_run_folder(job));
    fs::create_directories(result("student-fla"));
    test::put(result("student-fla/config.json"), "{}");
    job.export_to.formats = {"fla", "qwen3_5"};
    EXPECT_NO_THROW(open_run_folder(job)) << "another folder beside it";
    expect_refused([](Job& j) { j.export_to.precision = ExportPrecision::bfloat16; }, {"export.precision"});
}

TEST_F(RunFolder, a_truncated_job_file_is_called_damaged) {
    open_run_folder(job);
    for (const size_t size : {size_t(0), size_t(40)}) {
        fs::resize_file(result("job.yaml"), size);
        expect_error([&] { open_run_folder(job); }, ExitCode::damaged_file, {result("job.yaml").string(), "damaged"});
        EXPECT_EQ(fs::file_size(result("job.yaml")), size) << "left as it is";
    }
}

TEST_F(RunFolder, another_job_is_refused_and_its_keys_are_named) {
    open_run_folder(job);
    test::put(result("checkpoints/transfer.h5"), "a result");
    const fs::path elsewhere = folder / "elsewhere";
    fs::copy(job.teacher.path, elsewhere);
    test::put(elsewhere / "config.json", test::content_of(elsewhere / "config.json") + " ");
    expect_refused([](Job& j) { j.seed = 4; }, {"seed: was 0, now 4"});
    expect_refused([](Job& j) { j.align.tokens += 96; }, {"align.tokens: was 576, now 672"});
    expect_refused([](Job& j) { j.distill.tokens += 96; }, {"distill.tokens"});
    expect_refused([](Job& j) { j.score.optimizer.beta1 = 0.5; }, {"score.optimizer.beta1"});
    expect_refused([](Job& j) { j.select.options["layers"] = std::vector<int64_t>{1}; },
                   {"select.layers: was [], now [1]"});
    expect_refused([](Job& j) { j.deterministic = false; }, {"deterministic"});
    expect_refused(
        [&](Job& j) {
            j.student.options["rope"] = true;
            j.teacher.path = elsewhere.string();
        },
        {"student.rope", "teacher.path", "elsewhere"});
}

/// Such as one whose first start was refused.
TEST_F(RunFolder, without_results_takes_any_job) {
    open_run_folder(job);
    test::put(result("metrics.csv"), "of the first");
    test::put(result("stalled"), "1");
    job.seed = 4;
    open_run_folder(job);
    EXPECT_EQ(read_job(result("job.yaml")).seed, 4);
    EXPECT_FALSE(fs::exists(result("metrics.csv")));
    EXPECT_FALSE(fs::exists(result("stalled")));
    for (const char* file : {"checkpoints/transfer.h5", "learning_rates/align.h5", "candidates/gates.h5", "scores.h5",
                             "answers/teacher.0.h5", "student/config.json"}) {
        fs::create_directories(result(file).parent_path());
        test::put(result(file), "a result");
        expect_refused([](Job& j) { j.seed = 5; }, {"seed: was 4, now 5"});
        fs::remove(result(file));
    }
}

TEST_F(RunFolder, leftovers_of_interrupted_writes_are_removed) {
    open_run_folder(job);
    const auto left = {result("scores.h5.tmp"), result("checkpoints/align.h5.tmp"),
                       result("candidates/candidate-001.h5.tmp"), result("student/model.safetensors.1.host.7.tmp")};
    fs::create_directories(result("student"));
    for (const auto& path : left) test::put(path, "half");
    test::put(result("stop"), "");
    test::put(result("notes.txt"), "mine");
    open_run_folder(job);
    for (const auto& path : left) EXPECT_FALSE(fs::exists(path)) << path;
    EXPECT_FALSE(fs::exists(result("stop"))) << "it would stop the new start at once";
    EXPECT_TRUE(fs::exists(result("notes.txt")));
}

TEST_F(RunFolder, that_cannot_be_made_is_a_storage_error) {
    test::put(folder / "outputs", "a file");
    expect_error([&] { open_run_folder(job); }, ExitCode::storage, {run_folder().string()});
}

/// Run folders that version 1 of scores.h5 left, with the selection in it.
class EarlierVersion : public RunFolder {
  protected:
    /// `order`: what was selected.
    void leave(const std::string& rule, const std::vector<int64_t>& order) {
        job.select.rule = rule;
        open_run_folder(job);
        const ScoreTable table = rule == "kl_guided" ? made_up_scores(layers, {0, 1, 2, 3}) : ScoreTable{};
        test::write_scores_of_version_1(result("scores.h5"), table, layers, order);
    }
    static constexpr int64_t layers = test::small_layers;
};

TEST_F(EarlierVersion, gets_a_file_of_its_selection) {
    for (const std::string rule : {"kl_guided", "explicit"}) {
        job.name = rule;
        leave(rule, {3, 1});
        const std::string scores = test::content_of(result("scores.h5"));
        open_run_folder(job);
        const Selection selection = read_selection(result("selection.h5"));
        EXPECT_EQ(selection.rule, rule);
        EXPECT_EQ(selection.order, (std::vector<int64_t>{3, 1}));
        EXPECT_EQ(selection.layout, keep_softmax(layers, job.student.mixer, {1, 3}));
        EXPECT_EQ(test::content_of(result("scores.h5")), scores);
    }
}

TEST_F(EarlierVersion, keeps_the_selection_that_has_its_file) {
    leave("kl_guided", {3, 1});
    write_selection(result("selection.h5"), {"kl_guided", "", {2}, keep_softmax(layers, job.student.mixer, {2})},
                    Provenance{});
    open_run_folder(job);
    EXPECT_EQ(read_selection(result("selection.h5")).order, (std::vector<int64_t>{2}));
}

/// Their selection must not be taken for that of the new run.
TEST_F(EarlierVersion, gives_its_scores_to_others_without_the_selection) {
    leave("kl_guided", {3, 1});
    test::put(result("checkpoints/transfer.h5"), "transferred");
    test::put(result("checkpoints/align.h5"), "aligned");
    const fs::path source = run_folder();
    job.name = "second";
    job.reuse = source.string();
    for (int start = 0; start < 2; ++start) {
        open_run_folder(job);
        EXPECT_FALSE(fs::exists(result("selection.h5"))) << "selecting is this job's own work";
        const ScoreTable table = read_scores(result("scores.h5"));
        EXPECT_EQ(test::scores_of(table), test::scores_of(read_scores(source / "scores.h5")));
        EXPECT_EQ(table.candidates[2].candidate.layout, keep_softmax(layers, job.student.mixer, {2}));
        EXPECT_EQ(table.all_linear_kl, read_scores(source / "scores.h5").all_linear_kl);
    }
}

class Reuse : public RunFolder {
  protected:
    /// A run with checkpoints, scores and a selection, and a job that reuses it.
    void SetUp() override {
        open_run_folder(job);
        source = run_folder();
        test::put(result("checkpoints/transfer.h5"), "transferred");
        test::put(result("checkpoints/align.h5"), "aligned");
        test::put(result("checkpoints/distill.h5"), "distilled");
        write_scores(result("scores.h5"), made_up_scores(test::small_layers, {0, 1, 2, 3}), Provenance{});
        test::put(result("selection.h5"), "selected");
        job.name = "second";
        job.reuse = source.string();
        job.select.options["budget"] = "2";
    }
    fs::path source;
};

TEST_F(Reuse, takes_over_what_does_not_depend_on_the_budget) {
    open_run_folder(job);
    EXPECT_EQ(test::content_of(result("checkpoints/transfer.h5")), "transferred");
    EXPECT_EQ(test::content_of(result("checkpoints/align.h5")), "aligned");
    EXPECT_FALSE(fs::exists(result("checkpoints/distill.h5")));
    EXPECT_EQ(test::content_of(result("scores.h5")), test::content_of(source / "scores.h5"));
    EXPECT_FALSE(fs::exists(result("selection.h5"))) << "selecting is this job's own work";
    EXPECT_EQ(test::content_of(source / "selection.h5"), "selected") << "the other run keeps its own";
}

TEST_F(Reuse, later_stages_may_differ) {
    job.distill.tokens += 96;
    job.select.rule = "uniform";
    job.evaluate.sequences = 1;
    EXPECT_NO_THROW(open_run_folder(job));
}

TEST_F(Reuse, takes_over_what_the_teacher_answered_to_the_same_requests) {
    job.evaluate.requests = (folder / "requests.h5").string();
    test::put(job.evaluate.requests, "requests");
    Job theirs = job;
    theirs.name = source.filename().string();
    theirs.reuse = "";
    theirs.select.options["budget"] = "1";
    open_run_folder(theirs);
    HeldOutSet set;
    set.tokens = at::zeros({1, 2}, at::kLong);
    set.answers = {{}};
    write_evaluation(source / "evaluation.h5",
                     {{"teacher", {{1.0, 0.0}, {1.0, 0.0}, {}}, Answers{"fingerprint", {-1.5}, {1}, {{}}}, {}}}, set, 1,
                     {"softmax"}, Provenance{});
    open_run_folder(job);
    const H5File kept = H5File::open(kept_answers_folder(run_folder()) / "teacher.0.h5");
    EXPECT_EQ(kept.read_doubles("/loglikelihood"), std::vector<double>{-1.5});

    test::put(job.evaluate.requests, "other requests");
    job.name = "third";
    open_run_folder(job);
    EXPECT_FALSE(fs::exists(kept_answers_folder(run_folder())));
}

TEST_F(Reuse, of_a_job_that_scores_in_another_way_takes_the_alignment_alone) {
    job.score.temperature = 2.0;
    open_run_folder(job);
    EXPECT_EQ(test::content_of(result("checkpoints/align.h5")), "aligned");
    EXPECT_FALSE(fs::exists(result("scores.h5")));
}

TEST_F(Reuse, of_a_run_without_its_alignment_takes_no_scores_either) {
    fs::remove(source / "checkpoints/align.h5");
    open_run_folder(job);
    EXPECT_TRUE(fs::exists(result("checkpoints/transfer.h5")));
    EXPECT_FALSE(fs::exists(result("scores.h5")));
}

TEST_F(Reuse, does_not_overwrite_what_is_there) {
    open_run_folder(job);
    fs::remove(result("scores.h5"));
    write_scores(result("scores.h5"), made_up_scores(test::small_layers, {3, 2, 1, 0}), Provenance{});
    const std::string own = test::content_of(result("scores.h5"));
    open_run_folder(job);
    EXPECT_EQ(test::content_of(result("scores.h5")), own);
}

TEST_F(Reuse, of_another_job_is_refused_and_its_keys_are_named) {
    job.align.optimizer.learning_rate = 0.5;
    job.seed += 1;
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input,
                 {source.string(), "align.optimizer.learning_rate", "seed"});
    EXPECT_FALSE(fs::exists(result("checkpoints/align.h5")));
}

TEST_F(Reuse, that_was_refused_leaves_the_folder_to_the_corrected_job) {
    const Job good = job;
    job.seed += 1;
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, {"seed"});
    open_run_folder(good);
    EXPECT_EQ(test::content_of(result("checkpoints/align.h5")), "aligned");
}

TEST_F(Reuse, of_nothing_names_the_folder) {
    job.reuse = (folder / "nowhere").string();
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, {job.reuse});
}

}  // namespace
}  // namespace amalgam
