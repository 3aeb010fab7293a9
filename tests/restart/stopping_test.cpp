// SPDX-License-Identifier: Apache-2.0
// P6: requests to save and to stop, sent to real runs at awkward moments. SIGSTOP (AMALGAM_FAULT) holds a run at the
// moment that is wanted.
#include "../fault/faulty_run.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_end;

class Stopping : public test::FaultyRun {
  protected:
    Stopping() {
        job.evaluate.sequences = 0;
        job.checkpoint.every_steps = 0;
        test::set_steps(job.align, 200);
    }

    void wait_for_training(const test::Process& running) {
        ASSERT_TRUE(test::wait_until(40.0, [&] {
            return test::content_of(result("metrics.csv")).find(",align,,,2,") != std::string::npos;
        })) << running.output();
    }
    bool saved() const { return StageCheckpoints(result("checkpoints"), "align", 1).latest().has_value(); }
};

TEST_F(Stopping, usr1_to_one_rank_stops_all_of_them) {
    const auto running = start(3);
    wait_for_training(*running);
    kill(running->children().back(), SIGUSR1);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"align: stopped on request, saved"});
    EXPECT_TRUE(saved());
}

TEST_F(Stopping, usr1_twice_is_like_once) {
    const auto running = start(2);
    wait_for_training(*running);
    running->send(SIGUSR1);
    running->send(SIGUSR1);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"align: stopped on request, saved"});
    EXPECT_TRUE(saved());
}

TEST_F(Stopping, usr1_during_a_save) {
    job.checkpoint.every_steps = 2;
    const auto running = held_at("checkpoint.before_fsync", 2, ":step=4:rank=0", 1);
    ask_to_stop(*running);
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"align: stopped on request, saved"});
    EXPECT_TRUE(saved());
    const auto again = start(2);
    EXPECT_TRUE(test::wait_until(40.0, [&] {
        return again->output().find("align: goes on from step") != std::string::npos;
    })) << again->output();
    again->send(SIGUSR1);
    EXPECT_EQ(again->wait(30.0).status, int(ExitCode::resumable));
}

TEST_F(Stopping, usr1_between_stages) {
    test::set_steps(job.align, 4);
    const auto running = held_at("stage.select", 2);
    ask_to_stop(*running);
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable),
               {"select: finished", "stopped on request before distill"});
    expect_end(run(2), 0, {"select: done before", "distill: finished"});
}

TEST_F(Stopping, usr1_before_the_first_stage) {
    test::set_steps(job.align, 4);
    const auto running = held_at("stage.transfer", 2);
    kill(running->children().front(), SIGUSR1);
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"stopped on request before align"});
}

TEST_F(Stopping, usr2_saves_and_the_run_goes_on) {
    const auto running = start(2);
    wait_for_training(*running);
    running->send(SIGUSR2);
    EXPECT_TRUE(test::wait_until(20.0, [&] { return saved(); })) << running->output();
    EXPECT_TRUE(running->is_running());
    running->send(SIGUSR1);
    EXPECT_EQ(running->wait(30.0).status, int(ExitCode::resumable));
}

TEST_F(Stopping, the_file_stop_stops_a_run_and_does_not_stop_the_next) {
    test::set_steps(job.align, 4);
    const auto running = held_at("distill.step", 2, ":step=3");
    test::put(result("stop"), "");
    go_on(*running);
    expect_end(running->wait(30.0), int(ExitCode::resumable), {"distill: stopped on request"});
    expect_end(run(2), 0, {"distill: goes on from step"});
}

TEST_F(Stopping, the_file_save_does_the_same) {
    const auto running = start(2);
    wait_for_training(*running);
    test::put(result("save"), "");
    EXPECT_TRUE(test::wait_until(20.0, [&] { return saved() && !fs::exists(result("save")); })) << running->output();
    EXPECT_TRUE(running->is_running());
    test::put(result("stop"), "");
    EXPECT_EQ(running->wait(30.0).status, int(ExitCode::resumable));
}

}  // namespace
}  // namespace amalgam
