// SPDX-License-Identifier: Apache-2.0
// Training in phases: one schedule and one optimizer over all of them, the same bits on any number of ranks and
// wherever it was stopped.
#include "../questions/recall_contents.h"
#include "small_training.h"

namespace amalgam {
namespace {

class TrainingInPhases : public test::TrainingTest {
  protected:
    static constexpr int64_t all_steps = 7;

    void SetUp() override {
        TrainingTest::SetUp();
        set_phases({{2 * 12 * 8, 8, 12, 0}, {3 * 6 * 16, 16, 6, 0}, {2 * 6 * 40, 40, 6, 0}});
    }

    void set_phases(const std::vector<TrainingPhase>& phases) {
        plan.phases = phases;
        plan.tokens = 0;
        for (const TrainingPhase& phase : phases) plan.tokens += phase.tokens;
        batches = std::make_unique<Batches>(*file, plan, 5, "distill", DocumentBorders::joined, test::small_wording());
    }

    /// Stops after `after` steps, then goes on to the end with a student of other weights.
    std::map<std::string, at::Tensor> interrupted(int64_t after) {
        const std::filesystem::path sub = shared / std::to_string(after);
        if (world.is_root()) std::filesystem::create_directories(sub);
        world.barrier();
        StopRequest stop(sub, 0.0);
        TrainerSetup with = setup(true);
        with.checkpoints = StageCheckpoints(sub, "distill", 2);
        with.stop = &stop;
        with.on_step = [&](int64_t done) {
            if (done == after && world.is_root()) test::put(sub / "stop", "");
        };
        EXPECT_FALSE(run(*new_student(), world, with).finished);
        with.stop = nullptr;
        const auto student = new_student(99);
        const auto outcome = run(*student, world, with);
        EXPECT_TRUE(outcome.finished);
        EXPECT_EQ(outcome.resumed_at, after);
        EXPECT_EQ(outcome.tokens, plan.tokens);
        world.barrier();
        const Checkpoint finished(with.checkpoints->finished());
        EXPECT_EQ(finished.state().data_cursor, 2 * 12 + 3 * 6 + 2 * 6);
        EXPECT_EQ(finished.state().tokens, plan.tokens);
        return test::weights_of(*student);
    }
};

TEST_F(TrainingInPhases, goes_on_within_a_phase_and_between_two_with_the_same_bits) {
    const auto student = new_student();
    EXPECT_EQ(run(*student, world, setup(true)).steps, all_steps);
    const auto expected = test::weights_of(*student);
    for (const int64_t after : {1, 2, 3, 5, 6})
        EXPECT_EQ(test::first_difference(interrupted(after), expected), "") << "stopped after step " << after;
}

TEST_F(TrainingInPhases, any_number_of_ranks_gives_the_same_bits_if_deterministic) {
    const auto alone = new_student(), together = new_student();
    const auto expected = run(*alone, Communicator(), setup(true)), found = run(*together, world, setup(true));
    EXPECT_EQ(found.step_losses, expected.step_losses);
    EXPECT_EQ(test::first_difference(test::weights_of(*together), test::weights_of(*alone)), "");
}

TEST_F(TrainingInPhases, one_of_all_tokens_is_the_stage_without_phases) {
    set_phases({{steps * batch * length, length, batch, 0}});
    const auto listed = new_student(), plain = new_student();
    const auto found = run(*listed, world, setup(true));
    plan.phases.clear();
    const auto expected = run(*plain, world, setup(true));
    EXPECT_EQ(found.step_losses, expected.step_losses);
    EXPECT_EQ(test::first_difference(test::weights_of(*listed), test::weights_of(*plain)), "");
}

/// Which is not what two stages one after another would do.
TEST_F(TrainingInPhases, of_equal_sequences_are_one_stage) {
    set_phases({{2 * batch * length, length, batch, 0}, {4 * batch * length, length, batch, 0}});
    const auto listed = new_student(), plain = new_student();
    run(*listed, world, setup(true));
    plan.phases.clear();
    run(*plain, world, setup(true));
    EXPECT_EQ(test::first_difference(test::weights_of(*listed), test::weights_of(*plain)), "");
}

TEST_F(TrainingInPhases, have_one_schedule_and_count_their_own_tokens) {
    plan.optimizer.schedule = Schedule::linear;
    plan.optimizer.final_fraction = 0.1;
    plan.optimizer.warmup_steps = 2;
    TrainerSetup with = setup(true);
    with.candidate = 0;  // whose progress is kept in the outcome
    with.log_every_steps = 1;
    with.flops_per_token = [](int64_t time) { return double(time); };
    const auto logged = run(*new_student(), Communicator(), with).logged;
    ASSERT_EQ(logged.size(), size_t(all_steps));
    const std::vector<int64_t> tokens = {96, 192, 288, 384, 480, 720, 960};
    // Warm-up in the first phase, then linear from 1e-2 down over the five steps of the other two.
    const std::vector<double> rates = {5e-3, 1e-2, 1e-2, 8.2e-3, 6.4e-3, 4.6e-3, 2.8e-3};
    for (size_t step = 0; step < rates.size(); ++step) {
        EXPECT_EQ(logged[step].tokens, tokens[step]);
        EXPECT_NEAR(logged[step].learning_rate, rates[step], 1e-12) << step;
    }
    // Step 5 is the last of three of 6 x 16 tokens; two of 6 x 40 are left, at 40 / 16 of the cost of a token.
    const double of_step = 96.0 / logged[4].tokens_per_second;
    EXPECT_NEAR(logged[4].seconds_left, 2 * 2.5 * 2.5 * of_step, 1e-9 * of_step);
}

/// The same steps; two of five sequences are recall questions.
class TrainingOnQuestions : public TrainingInPhases {
  protected:
    void SetUp() override {
        TrainingInPhases::SetUp();
        plan.question_kinds = {"noise", "text", "pairs"};
        plan.question_fraction = 0.4;
        set_phases({{2 * 12 * 24, 24, 12, 0}, {3 * 6 * 32, 32, 6, 0}, {2 * 6 * 64, 64, 6, 0}});
    }
};

TEST_F(TrainingOnQuestions, goes_on_with_the_same_bits) {
    const auto student = new_student(), of_text = new_student();
    run(*student, world, setup(true));
    const auto expected = test::weights_of(*student);
    for (const int64_t after : {1, 2, 4})
        EXPECT_EQ(test::first_difference(interrupted(after), expected), "") << "stopped after step " << after;
    plan.question_fraction = 0.0;
    set_phases(plan.phases);
    run(*of_text, world, setup(true));
    EXPECT_NE(test::first_difference(test::weights_of(*of_text), expected), "");
}

TEST_F(TrainingOnQuestions, any_number_of_ranks_gives_the_same_bits_if_deterministic) {
    const auto alone = new_student(), together = new_student();
    const auto expected = run(*alone, Communicator(), setup(true)), found = run(*together, world, setup(true));
    EXPECT_EQ(found.step_losses, expected.step_losses);
    EXPECT_EQ(test::first_difference(test::weights_of(*together), test::weights_of(*alone)), "");
}

}  // namespace
}  // namespace amalgam
