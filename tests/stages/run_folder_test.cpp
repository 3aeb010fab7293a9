// SPDX-License-Identifier: Apache-2.0
// Opening run folders: new ones, those of the same job, those of another job, and taking over another run's results.
#include "stages/run_folder.h"

#include "job/job_reader.h"
#include "selection/score_file.h"
#include "small_run.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

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
    job.peak_flops = "1e12";
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

TEST_F(RunFolder, another_job_is_refused_and_its_keys_are_named) {
    open_run_folder(job);
    expect_refused([](Job& j) { j.seed = 4; }, {"seed: was 0, now 4"});
    expect_refused([](Job& j) { j.align.tokens += 96; }, {"align.tokens: was 576, now 672"});
    expect_refused([](Job& j) { j.distill.tokens += 96; }, {"distill.tokens"});
    expect_refused([](Job& j) { j.score.optimizer.beta1 = 0.5; }, {"score.optimizer.beta1"});
    expect_refused([](Job& j) { j.select.layers = {1}; }, {"select.layers: was [], now [1]"});
    expect_refused([](Job& j) { j.deterministic = false; }, {"deterministic"});
    expect_refused(
        [](Job& j) {
            j.student.rope = true;
            j.teacher.path = "elsewhere";
        },
        {"student.rope", "teacher.path", "elsewhere"});
}

TEST_F(RunFolder, leftovers_of_interrupted_writes_are_removed) {
    open_run_folder(job);
    const auto left = {result("scores.h5.tmp"), result("checkpoints/align.h5.tmp"),
                       result("candidates/candidate-001.h5.tmp")};
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

class Reuse : public RunFolder {
  protected:
    /// A run with checkpoints and scores, and a job that reuses it.
    void SetUp() override {
        open_run_folder(job);
        source = run_folder();
        test::put(result("checkpoints/transfer.h5"), "transferred");
        test::put(result("checkpoints/align.h5"), "aligned");
        test::put(result("checkpoints/distill.h5"), "distilled");
        ScoreTable table;
        table.layers = test::small_layers;
        for (int64_t c = 0; c < test::small_layers; ++c)
            table.candidates.push_back({c, c, {0, 96}, {{1.0, 2.0}, {0.5, double(c)}}, {1.0}, 1.0, 0});
        table.all_linear_kl = {3.0, 4.0};
        table.selection = Selection{"kl_guided", {0}, {0}, 0};
        write_scores(result("scores.h5"), table, Provenance{});
        job.name = "second";
        job.reuse = source.string();
        job.select.budget = "2";
    }
    fs::path source;
};

TEST_F(Reuse, takes_over_what_does_not_depend_on_the_budget) {
    open_run_folder(job);
    EXPECT_EQ(test::content_of(result("checkpoints/transfer.h5")), "transferred");
    EXPECT_EQ(test::content_of(result("checkpoints/align.h5")), "aligned");
    EXPECT_FALSE(fs::exists(result("checkpoints/distill.h5")));
    const ScoreTable table = read_scores(result("scores.h5"));
    EXPECT_FALSE(table.selection.has_value()) << "selecting is this job's own work";
    EXPECT_EQ(table.scores_by_layer(), read_scores(source / "scores.h5").scores_by_layer());
    EXPECT_EQ(table.all_linear_kl, (std::vector<double>{3.0, 4.0}));
    EXPECT_TRUE(read_scores(source / "scores.h5").selection.has_value()) << "the other run keeps its own";
}

TEST_F(Reuse, later_stages_may_differ) {
    job.distill.tokens += 96;
    job.select.rule = "uniform";
    job.evaluate.sequences = 1;
    EXPECT_NO_THROW(open_run_folder(job));
}

TEST_F(Reuse, of_a_job_that_scores_in_another_way_takes_the_alignment_alone) {
    job.score.temperature = 2.0;
    open_run_folder(job);
    EXPECT_EQ(test::content_of(result("checkpoints/align.h5")), "aligned");
    EXPECT_FALSE(fs::exists(result("scores.h5")));
}

TEST_F(Reuse, does_not_overwrite_what_is_there) {
    open_run_folder(job);
    ScoreTable table = read_scores(result("scores.h5"));
    table.selection = Selection{"kl_guided", {0, 1}, {0, 1}, 0};
    write_scores(result("scores.h5"), table, Provenance{});
    open_run_folder(job);
    EXPECT_TRUE(read_scores(result("scores.h5")).selection.has_value());
}

TEST_F(Reuse, of_another_job_is_refused_and_its_keys_are_named) {
    job.align.optimizer.learning_rate = 0.5;
    job.seed += 1;
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input,
                 {source.string(), "align.optimizer.learning_rate", "seed"});
    EXPECT_FALSE(fs::exists(result("checkpoints/align.h5")));
}

TEST_F(Reuse, of_nothing_names_the_folder) {
    job.reuse = (folder / "nowhere").string();
    expect_error([&] { open_run_folder(job); }, ExitCode::bad_input, {job.reuse});
}

}  // namespace
}  // namespace amalgam
