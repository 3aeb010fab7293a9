// SPDX-License-Identifier: Apache-2.0
// Runs that are killed or stopped, and started again: nothing finished is computed twice, and the results are those of
// a run that nobody disturbed, bit for bit.
#include "../fault/faulty_run.h"
#include "../selection/made_up_scores.h"
#include "selection/selection.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class Restart : public test::FaultyRun {
  protected:
    Restart() {
        job.evaluate.sequences = 0;
        job.checkpoint.every_steps = 3;
        job.checkpoint.background = BackgroundSaving::never;  // so that it is known which are there after a kill
    }

    void expect_same_results(const fs::path& expected) {
        EXPECT_EQ(differing_datasets(expected / "scores.h5", result("scores.h5"), test::times_and_places), Names{});
        for (const char* file : {"checkpoints/align.h5", "selection.h5", "checkpoints/distill.h5"})
            EXPECT_EQ(differing_datasets(expected / file, result(file)), Names{}) << file;
    }

    /// Checkpoints on the way of a stage.
    bool has_checkpoint(const std::string& stage) const {
        if (!fs::exists(result("checkpoints"))) return false;
        return StageCheckpoints(result("checkpoints"), stage, 1).latest().has_value();
    }

    /// Starts a run that hangs at `fault` and kills it once `there` is true.
    template <class Condition>
    void kill_after(const std::string& fault, Condition there) {
        setenv("AMALGAM_FAULT", fault.c_str(), 1);
        const auto running = start(2);
        unsetenv("AMALGAM_FAULT");
        ASSERT_TRUE(test::wait_until(40.0, there)) << running->output();
        for (const pid_t rank : running->children()) kill(rank, SIGKILL);
        EXPECT_NE(running->wait(20.0).status, 0);
    }
};

TEST_F(Restart, a_kill_during_scoring_loses_no_finished_candidate) {
    kill_after("score.candidate:hang:rank=0", [&] { return fs::exists(result("candidates/candidate-001.h5")); });
    ASSERT_FALSE(fs::exists(result("scores.h5")));

    std::map<std::string, fs::file_time_type> done;
    for (const auto& entry : fs::directory_iterator(result("candidates")))
        if (entry.path().extension() == ".h5") done[entry.path()] = entry.last_write_time();
    ASSERT_FALSE(done.empty());
    ASSERT_LT(int64_t(done.size()), test::small_layers);
    const std::string missing = std::to_string(test::small_layers - int64_t(done.size()));
    expect_end(run(2), 0, {"align: done before", "score: " + missing + " of 4 candidates to do"});
    for (const auto& [path, time] : done) EXPECT_EQ(fs::last_write_time(path), time) << path;
    expect_same_results(undisturbed());
}

TEST_F(Restart, ranks_without_a_candidate_wait_for_the_others) {
    fs::create_directories(job.output);
    fs::copy(undisturbed(), run_folder(), fs::copy_options::recursive);
    // One candidate is left for three ranks.
    for (const char* file :
         {"scores.h5", "selection.h5", "candidates/candidate-003.h5", "checkpoints/distill.h5", "evaluation.h5"})
        fs::remove(result(file));
    expect_end(run(3), 0, {"score: 1 of 4 candidates to do, 3 groups of 1 ranks"});
    expect_same_results(undisturbed());
}

TEST_F(Restart, a_kill_during_training_goes_on_from_the_last_checkpoint) {
    kill_after("align.step:hang:step=5", [&] { return has_checkpoint("align"); });
    ASSERT_FALSE(fs::exists(result("checkpoints/align.h5")));
    expect_end(run(2), 0, {"transfer: done before", "align: goes on from step"});
    expect_same_results(undisturbed());
}

TEST_F(Restart, usr1_saves_stops_and_can_be_taken_up) {
    job.checkpoint.every_steps = 0;
    const auto running = held_at("align.step", 2, ":step=3");
    ask_to_stop(*running);
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"align: stopped on request, saved"});
    EXPECT_TRUE(has_checkpoint("align"));
    EXPECT_FALSE(fs::exists(result("checkpoints/align.h5")));
    expect_end(run(1), 0, {"align: goes on from step"});
    EXPECT_FALSE(has_checkpoint("align"));
    expect_same_results(undisturbed());
}

TEST_F(Restart, usr1_during_scoring_can_be_taken_up) {
    const auto running = held_at("score.candidate", 2, ":rank=0", 1);
    ASSERT_TRUE(test::wait_until(40.0, [&] { return fs::exists(result("candidates/candidate-001.h5")); }))
        << running->output();
    ask_to_stop(*running);
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"score: stopped on request"});
    expect_end(run(2), 0, {"score: finished"});
    expect_same_results(undisturbed());
}

TEST_F(Restart, the_walltime_stops_a_run_in_time) {
    test::set_steps(job.align, 100000);
    job.walltime = "00:00:03";
    expect_end(run(2, 30.0), int(ExitCode::resumable), {"align: stopped on request, saved"});
    EXPECT_TRUE(has_checkpoint("align"));
}

TEST_F(Restart, another_budget_reuses_the_scores) {
    job.name = "first";
    expect_end(run(1), 0, {});
    const fs::path first = run_folder();
    job.name = "second";
    job.reuse = first.string();
    job.select.options["budget"] = "2";
    expect_end(run(2), 0, {"transfer: done before", "align: done before", "score: done before", "select: finished"});
    EXPECT_EQ(test::content_of(result("scores.h5")), test::content_of(first / "scores.h5"));
    const Selection before = read_selection(first / "selection.h5"), now = read_selection(result("selection.h5"));
    EXPECT_EQ(before.order.size(), 1U);
    ASSERT_EQ(now.order.size(), 2U);
    EXPECT_EQ(now.order[0], before.order[0]);
    EXPECT_EQ(Checkpoint(result("checkpoints/distill.h5")).spec().layout, now.layout);
}

/// A run of an earlier version of the program that was stopped in the race, and one that was stopped after it.
TEST_F(Restart, runs_of_version_1_of_the_scores_go_on) {
    job.name = "expected";
    expect_end(run(1), 0, {});
    const fs::path expected = run_folder();
    const auto reference = read_scores(expected / "scores.h5");
    const Selection selected = read_selection(expected / "selection.h5");
    for (const bool scored : {false, true}) {
        job.name = scored ? "scored" : "scoring";
        fs::create_directories(run_folder().parent_path());
        fs::copy(expected, run_folder(), fs::copy_options::recursive);
        for (const char* file : {"scores.h5", "selection.h5", "checkpoints/distill.h5", "evaluation.h5"})
            fs::remove(result(file));
        for (const CandidateResult& candidate : reference.candidates) {
            const fs::path file = result(text("candidates/candidate-00", candidate.number, ".h5"));
            fs::remove(file);
            if (candidate.number != 2) test::write_candidate_of_version_1(file, candidate);
        }
        if (scored) test::write_scores_of_version_1(result("scores.h5"), reference, test::small_layers, selected.order);
        expect_end(run(1), 0,
                   scored ? std::vector<std::string>{"score: done before", "select: done before"}
                          : std::vector<std::string>{"1 of 4 candidates to do", "select: finished"});
        EXPECT_EQ(test::scores_of(read_scores(result("scores.h5"))), test::scores_of(reference));
        EXPECT_EQ(read_selection(result("selection.h5")).layout, selected.layout);
        EXPECT_EQ(differing_datasets(expected / "checkpoints/distill.h5", result("checkpoints/distill.h5")), Names{});
    }
}

}  // namespace
}  // namespace amalgam
