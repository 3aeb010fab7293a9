// SPDX-License-Identifier: Apache-2.0
// Candidates that take longer than a start may: they go on from where they were stopped, bit for bit; a run that gets
// nothing done says so, and in the end with an exit code of its own.
#include "../stages/small_run.h"
#include "selection/candidate_state.h"
#include "selection/score_file.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class LongCandidates : public test::SmallRun {
  protected:
    LongCandidates() {
        job.evaluate.sequences = 0;
        test::set_steps(job.align, 2);
        test::set_steps(job.distill, 1);
        test::set_steps(job.score, 12);
        job.score.measurements = 3;
    }
    CandidateState state(int64_t candidate) const {
        return CandidateState(result(text("candidates/candidate-00", candidate, ".h5")));
    }
    /// A run that is asked to stop at a fault point, however fast the machine is: its ranks halt there, are asked, and
    /// go on.
    test::Finished stopped_at(const std::string& point, int ranks) {
        setenv("AMALGAM_FAULT", point.c_str(), 1);
        const auto running = start(ranks);
        unsetenv("AMALGAM_FAULT");
        const auto is_halted = [](pid_t process) {
            return test::content_of(fs::path("/proc") / std::to_string(process) / "stat").find(") T ") !=
                   std::string::npos;
        };
        const bool all_halted = test::wait_until(120.0, [&] {
            const auto found = running->children();
            return found.size() == size_t(ranks) && std::all_of(found.begin(), found.end(), is_halted);
        });
        EXPECT_TRUE(all_halted) << running->output();
        if (all_halted)
            for (const pid_t rank : running->children()) {
                kill(rank, SIGUSR1);
                kill(rank, SIGCONT);
            }
        return running->wait(60.0);
    }
    /// Every rank has done five steps of its first candidate.
    void stop_within_a_candidate(int ranks) {
        expect_end(stopped_at("score.step:stop:step=5", ranks), int(ExitCode::resumable),
                   {"score: candidate 0 is saved after step ", "score: stopped on request, saved"});
        ASSERT_FALSE(fs::exists(result("candidates/candidate-000.h5")));
        EXPECT_TRUE(state(0).checkpoints().latest());
    }
    void expect_same_scores() {
        EXPECT_EQ(differing_datasets(undisturbed() / "scores.h5", result("scores.h5"), test::times_and_places),
                  Names{});
        for (const auto& entry : fs::directory_iterator(result("candidates")))
            EXPECT_TRUE(entry.path().filename().string().starts_with("candidate-")) << entry.path();
    }
};

TEST_F(LongCandidates, go_on_from_where_they_were_stopped) {
    stop_within_a_candidate(2);
    expect_end(run(1), 0, {"score: candidate 0 goes on from step ", "score: candidate 1 goes on from step "});
    expect_same_scores();
}

/// The state is what they go on from: with another one they end elsewhere; with a damaged one they begin again.
TEST_F(LongCandidates, need_a_state_that_is_whole) {
    stop_within_a_candidate(1);
    const fs::path half = run_folder(), latest = state(0).checkpoints().latest().value();
    const auto copy = [&](const std::string& name) {
        job.name = name;
        fs::copy(half, run_folder(), fs::copy_options::recursive);
        return result("candidates") / latest.filename();
    };
    H5File::update(copy("other-cursor")).set_attribute("/", "data_cursor", int64_t{0});
    expect_end(run(1), 0, {"score: candidate 0 goes on from step "});
    EXPECT_NE(differing_datasets(undisturbed() / "scores.h5", result("scores.h5"), test::times_and_places), Names{});

    const fs::path truncated = copy("truncated");
    fs::resize_file(truncated, fs::file_size(truncated) / 2);
    expect_end(run(1), 0, {truncated.string(), "candidate 0 begins from its beginning"});
    expect_same_scores();

    const fs::path flipped = copy("flipped");
    const std::string dataset = "/optimizer/exp_avg/model.layers.1.mlp.up_proj.weight";
    damage_by_flipping(flipped, size_t(H5File::open(flipped).offset_of(dataset)) + 3);
    expect_end(run(1), 0, {flipped.string(), "checksum", "candidate 0 begins from its beginning"});
    expect_same_scores();
}

class NoProgress : public LongCandidates {
  protected:
    /// A start that is asked to stop before its first stage.
    test::Finished stopped_at_its_start() { return stopped_at("start:stop", 1); }
};

TEST_F(NoProgress, comes_to_an_end_with_an_exit_code_of_its_own) {
    test::set_steps(job.score, 3);
    expect_end(stopped_at_its_start(), int(ExitCode::resumable), {"nothing got done in this start"});
    EXPECT_TRUE(fs::exists(result("stalled")));
    for (int more = 0; more < 2; ++more)
        expect_end(stopped_at_its_start(), int(ExitCode::no_progress), {"nothing got done in this start", "walltime"});
    expect_end(run(1), 0, {"finished in"});
    EXPECT_FALSE(fs::exists(result("stalled")));
}

TEST_F(NoProgress, is_counted_from_the_last_start_that_did_something) {
    test::set_steps(job.align, 300);
    expect_end(stopped_at_its_start(), int(ExitCode::resumable), {"nothing got done in this start"});
    const auto running = start(1);
    ASSERT_TRUE(test::wait_until(40.0, [&] {
        return test::content_of(result("metrics.csv")).find(",align,,,2,") != std::string::npos;
    })) << running->output();
    running->send(SIGUSR1);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"align: stopped on request, saved; run the same"});
    expect_end(stopped_at_its_start(), int(ExitCode::resumable), {"nothing got done in this start"});
}

/// P14, of the program: two starts in one folder.
class TwoStarts : public LongCandidates {};

TEST_F(TwoStarts, in_one_folder_are_one_run_and_a_refusal) {
    // It cannot be over before the second start comes, however fast it is: both ranks halt within a candidate.
    setenv("AMALGAM_FAULT", "score.step:hang:step=3", 1);
    const auto running = start(2);
    unsetenv("AMALGAM_FAULT");
    ASSERT_TRUE(test::wait_until(120.0, [&] {
        return test::content_of(result("metrics.csv")).find(",score,0,,2,") != std::string::npos;
    })) << running->output();
    test::put(result("scores.h5.another-host.1.tmp"), "of the run that is at work");
    expect_end(run(1), int(ExitCode::busy), {run_folder().string(), "another run is at work here: process "});
    EXPECT_TRUE(fs::exists(result("scores.h5.another-host.1.tmp"))) << "the second start must touch nothing";
    EXPECT_TRUE(running->is_running());
    // A killed run leaves no lock behind.
    for (const pid_t rank : running->children()) kill(rank, SIGKILL);
    EXPECT_NE(running->wait(120.0).status, 0);
    expect_end(run(1), 0, {"scores.h5.another-host.1.tmp: left by an interrupted write, removed", "score: finished"});
    EXPECT_FALSE(fs::exists(result("lock")));
    expect_same_scores();
}

}  // namespace
}  // namespace amalgam
