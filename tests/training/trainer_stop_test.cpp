// SPDX-License-Identifier: Apache-2.0
// Requests from outside: trigger files, signals, walltime.
#include <signal.h>

#include "small_training.h"
#include "system/signals.h"

namespace amalgam {
namespace {

class Stop : public test::TrainingTest {
  protected:
    void SetUp() override {
        install_signal_handlers();
        TrainingTest::SetUp();
        if (world.is_root()) std::filesystem::create_directories(shared / "run");
        world.barrier();
    }

    /// Trains with a request made by `act` after `step` steps.
    TrainerOutcome run_with(double walltime, const std::function<void(int64_t done)>& act) {
        StopRequest stop(shared / "run", walltime);
        TrainerSetup with = setup(true);
        with.checkpoints = StageCheckpoints(shared / "run", "distill", 2);
        with.checkpoint.background = BackgroundSaving::never;  // files are there when the next step begins
        with.stop = &stop;
        with.on_step = act;
        const auto student = new_student();
        const auto outcome = run(*student, world, with);
        world.barrier();
        stopping = stop.stopping();
        return outcome;
    }
    bool saved(int64_t step) const {
        return std::filesystem::exists(StageCheckpoints(shared / "run", "distill", 2).at_step(step));
    }
    bool stopping = false;
};

TEST_F(Stop, the_file_stop_ends_the_training_after_saving) {
    const auto outcome = run_with(0.0, [&](int64_t done) {
        if (done == 2 && world.is_root()) test::put(shared / "run" / "stop", "");
    });
    EXPECT_FALSE(outcome.finished);
    EXPECT_EQ(outcome.steps, 2);
    EXPECT_TRUE(saved(2));
    EXPECT_TRUE(stopping);
    EXPECT_TRUE(std::filesystem::exists(shared / "run" / "stop")) << "other groups of ranks must see it too";
}

TEST_F(Stop, the_file_save_saves_once_and_the_training_goes_on) {
    std::vector<bool> there;
    const auto outcome = run_with(0.0, [&](int64_t done) {
        if (done == 2 && world.is_root()) test::put(shared / "run" / "save", "");
        if (done == 4) there = {saved(2), saved(3), std::filesystem::exists(shared / "run" / "save")};
        world.barrier();
    });
    EXPECT_TRUE(outcome.finished);
    EXPECT_EQ(there, (std::vector<bool>{true, false, false}));
}

TEST_F(Stop, the_walltime_ends_the_training_after_saving) {
    const auto outcome = run_with(1e-3, [](int64_t) {});
    EXPECT_FALSE(outcome.finished);
    EXPECT_EQ(outcome.steps, 1);
    EXPECT_TRUE(saved(1));
}

TEST_F(Stop, a_far_walltime_does_nothing) {
    EXPECT_TRUE(run_with(1e6, [](int64_t) {}).finished);
    EXPECT_FALSE(stopping);
}

TEST_F(Stop, a_request_at_the_last_step_changes_nothing) {
    const auto outcome = run_with(0.0, [&](int64_t done) {
        if (done == steps && world.is_root()) test::put(shared / "run" / "stop", "");
    });
    EXPECT_TRUE(outcome.finished);
    EXPECT_FALSE(saved(steps));
    EXPECT_TRUE(StageCheckpoints(shared / "run", "distill", 2).is_finished());
}

TEST_F(Stop, usr2_on_one_rank_saves_and_the_training_goes_on) {
    bool there = false;
    const auto outcome = run_with(0.0, [&](int64_t done) {
        if (done == 3 && world.rank() == world.size() - 1) raise(SIGUSR2);
        if (done == 4) there = saved(3) && !saved(2);
        world.barrier();
    });
    EXPECT_TRUE(outcome.finished);
    EXPECT_TRUE(there);
}

/// Last of all: the request stays.
TEST_F(Stop, usr1_on_one_rank_stops_all_after_saving) {
    const auto outcome = run_with(0.0, [&](int64_t done) {
        if (done == 4 && world.rank() == world.size() - 1) raise(SIGUSR1);
    });
    EXPECT_FALSE(outcome.finished);
    EXPECT_EQ(outcome.steps, 4);
    EXPECT_TRUE(saved(4));
}

}  // namespace
}  // namespace amalgam
