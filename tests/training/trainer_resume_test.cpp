// SPDX-License-Identifier: Apache-2.0
// Going on from a checkpoint must end where an uninterrupted run ends, bit for bit, and must not if a part of the state
// is lost.
#include "../checkpoints/whole_checkpoint.h"
#include "small_training.h"

namespace amalgam {
namespace {

class Resume : public test::TrainingTest {
  protected:
    static constexpr int64_t stopped_after = 3;

    TrainerSetup saving(const std::string& sub) {
        if (world.is_root()) std::filesystem::create_directories(shared / sub);
        world.barrier();
        TrainerSetup with = setup(true);
        with.checkpoints = StageCheckpoints(shared / sub, "distill", 2);
        return with;
    }

    /// Stops after `stopped_after` steps, with everything saved.
    void run_first_part(const std::string& sub) {
        StopRequest stop(shared / sub, 0.0);
        TrainerSetup with = saving(sub);
        with.stop = &stop;
        with.on_step = [&](int64_t done) {
            if (done == stopped_after && world.is_root()) test::put(shared / sub / "stop", "");
        };
        const auto student = new_student();
        const auto outcome = run(*student, world, with);
        ASSERT_FALSE(outcome.finished);
        ASSERT_EQ(outcome.steps, stopped_after);
    }

    /// Goes on with a student of other weights, which the checkpoint must replace.
    std::map<std::string, at::Tensor> run_second_part(const std::string& sub, const Communicator& group) {
        const auto student = new_student(99);
        const auto outcome = run(*student, group, saving_here(sub));
        EXPECT_TRUE(outcome.finished);
        EXPECT_EQ(outcome.step_losses.size(), size_t(steps - stopped_after));
        return test::weights_of(*student);
    }
    TrainerSetup saving_here(const std::string& sub) const {
        TrainerSetup with = setup(true);
        with.checkpoints = StageCheckpoints(shared / sub, "distill", 2);
        return with;
    }

    std::map<std::string, at::Tensor> uninterrupted() {
        const auto student = new_student();
        run(*student, world, setup(true));
        return test::weights_of(*student);
    }
};

TEST_F(Resume, ends_where_an_uninterrupted_run_ends) {
    run_first_part("run");
    world.barrier();
    const auto found = run_second_part("run", world), expected = uninterrupted();
    EXPECT_EQ(test::first_difference(found, expected), "");
    world.barrier();
    const StageCheckpoints files(shared / "run", "distill", 2);
    EXPECT_TRUE(files.is_finished());
    EXPECT_FALSE(files.latest().has_value()) << "checkpoints on the way are removed in the end";
    const Checkpoint checkpoint(files.finished());
    EXPECT_EQ(checkpoint.state().step, steps);
    EXPECT_EQ(checkpoint.state().data_cursor, steps * batch);
    for (const auto& [name, tensor] : expected) EXPECT_TRUE(at::equal(*checkpoint.find(name), tensor)) << name;
}

TEST_F(Resume, may_go_on_with_another_number_of_ranks) {
    run_first_part("run");
    world.barrier();
    const auto expected = uninterrupted();
    if (world.is_root()) {
        EXPECT_EQ(test::first_difference(run_second_part("run", Communicator()), expected), "");
    }
}

/// Loads the checkpoint, changes a part of the state, and writes it back.
void change_state(const std::filesystem::path& path, CausalLM& model, const OptimizerJob& options, bool moments,
                  int64_t cursor_shift) {
    AdamW optimizer(all_parameters(model), options);
    CheckpointState state;
    {
        const Checkpoint checkpoint(path);
        load_weights(model, {&checkpoint});
        test::load_optimizer(checkpoint, optimizer);
        state = checkpoint.state();
    }
    if (moments)
        optimizer.for_each_moment([](const std::string&, at::Tensor m, at::Tensor v) {
            m.zero_();
            v.zero_();
        });
    state.data_cursor += cursor_shift;
    test::write_checkpoint(path, model, &optimizer, state);
}

TEST_F(Resume, without_the_moments_it_ends_elsewhere) {
    run_first_part("run");
    const auto model = new_student();
    if (world.is_root())
        change_state(StageCheckpoints(shared / "run", "distill", 2).at_step(stopped_after), *model, plan.optimizer,
                     true, 0);
    world.barrier();
    EXPECT_NE(test::first_difference(run_second_part("run", world), uninterrupted()), "");
}

TEST_F(Resume, with_another_cursor_it_ends_elsewhere) {
    run_first_part("run");
    const auto model = new_student();
    if (world.is_root())
        change_state(StageCheckpoints(shared / "run", "distill", 2).at_step(stopped_after), *model, plan.optimizer,
                     false, 1);
    world.barrier();
    const auto student = new_student(99);
    EXPECT_TRUE(run(*student, world, saving_here("run")).finished);
    EXPECT_NE(test::first_difference(test::weights_of(*student), uninterrupted()), "");
}

/// The negative controls above would also pass if rewriting a checkpoint spoilt it.
TEST_F(Resume, a_checkpoint_written_again_is_as_good) {
    run_first_part("run");
    const auto model = new_student();
    if (world.is_root())
        change_state(StageCheckpoints(shared / "run", "distill", 2).at_step(stopped_after), *model, plan.optimizer,
                     false, 0);
    world.barrier();
    EXPECT_EQ(test::first_difference(run_second_part("run", world), uninterrupted()), "");
}

TEST_F(Resume, a_damaged_checkpoint_is_an_error_of_all_ranks) {
    run_first_part("run");
    const auto path = StageCheckpoints(shared / "run", "distill", 2).at_step(stopped_after);
    if (world.is_root()) std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1);
    world.barrier();
    const auto student = new_student();
    test::expect_error([&] { run(*student, world, saving_here("run")); }, ExitCode::damaged_file, {path.string()});
    world.barrier();
    EXPECT_FALSE(StageCheckpoints(shared / "run", "distill", 2).is_finished());
}

/// Somebody has put the end of a stage in the place of a checkpoint on the way.
TEST_F(Resume, from_a_checkpoint_without_moments_is_refused) {
    const auto path = StageCheckpoints(shared / "run", "distill", 2).at_step(stopped_after);
    const auto with = saving("run");
    if (world.is_root())
        test::write_checkpoint(path, *new_student(), nullptr, {"distill", stopped_after, 0, stopped_after * batch, 0});
    world.barrier();
    const auto student = new_student();
    test::expect_error([&] { run(*student, world, with); }, ExitCode::bad_input,
                       {path.string(), "holds no optimizer state"});
}

TEST_F(Resume, checkpoints_are_written_at_their_steps) {
    TrainerSetup with = saving("run");
    with.checkpoint.every_steps = 2;
    with.checkpoint.background = BackgroundSaving::never;
    std::vector<std::string> seen;
    with.on_step = [&](int64_t done) {  // called before the save of the same step
        if (done == 5)
            for (const auto& entry : std::filesystem::directory_iterator(shared / "run"))
                seen.push_back(entry.path().filename());
        world.barrier();
    };
    const auto student = new_student();
    run(*student, world, with);
    std::sort(seen.begin(), seen.end());
    EXPECT_EQ(seen, (std::vector<std::string>{"distill-00000002.h5", "distill-00000004.h5"}));
}

TEST_F(Resume, a_save_in_the_background_is_a_checkpoint_before_the_next_one_begins) {
    TrainerSetup with = saving("run");
    with.checkpoint.every_steps = 2;
    with.checkpoint.background = BackgroundSaving::always;
    bool there = false;
    with.on_step = [&](int64_t done) {
        if (done == 5) there = std::filesystem::exists(with.checkpoints->at_step(2));
        world.barrier();
    };
    const auto student = new_student();
    run(*student, world, with);
    EXPECT_TRUE(there);
    EXPECT_TRUE(with.checkpoints->is_finished());
    EXPECT_FALSE(with.checkpoints->latest().has_value());
}

TEST_F(Resume, checkpoints_are_written_by_the_clock) {
    for (const double minutes : {1e-9, 60.0}) {
        const std::string sub = minutes < 1.0 ? "often" : "seldom";
        TrainerSetup with = saving(sub);
        with.checkpoint.every_steps = 0;
        with.checkpoint.every_minutes = minutes;
        with.checkpoint.background = BackgroundSaving::never;
        bool there = false;
        with.on_step = [&](int64_t done) {
            if (done == 5) there = std::filesystem::exists(with.checkpoints->at_step(4));
            world.barrier();
        };
        const auto student = new_student();
        run(*student, world, with);
        EXPECT_EQ(there, minutes < 1.0);
    }
}

}  // namespace
}  // namespace amalgam
