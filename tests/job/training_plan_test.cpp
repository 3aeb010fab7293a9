// SPDX-License-Identifier: Apache-2.0
// Phases of a training stage: what each step is, how a job file gives them, what is refused.
#include "job/training_plan.h"

#include <gtest/gtest.h>

#include "error_text.h"
#include "job/job_check.h"
#include "job/job_reader.h"
#include "job/job_writer.h"
#include "job/learning_rate_trials.h"

namespace amalgam {
namespace {

/// 3 steps of 4 x 8 (and a rest), 2 of 2 x 16, 4 of 1 x 40.
TrainingJob three_phases() {
    TrainingJob job;
    job.phases = {{100, 8, 4, 0}, {64, 16, 2, 0}, {160, 40, 1, 0}};
    job.tokens = 324;
    return job;
}

TEST(TrainingPlan, says_what_every_step_is) {
    const TrainingPlan plan(three_phases());
    EXPECT_EQ(plan.steps(), 9);
    EXPECT_EQ(plan.tokens(), 96 + 64 + 160);
    EXPECT_EQ(plan.block_length(), 40);
    EXPECT_EQ(plan.blocks(), 3 + 2 + 4) << "12 of 5 parts, 4 of 2, 4 of 1";
    const std::vector<int64_t> lengths = {8, 8, 8, 16, 16, 40, 40, 40, 40}, batches = {4, 4, 4, 2, 2, 1, 1, 1, 1};
    int64_t tokens = 0, sequences = 0;
    for (int64_t step = 0; step < 9; ++step) {
        EXPECT_EQ(plan.phase_of_step(step).sequence_length, lengths[size_t(step)]) << step;
        EXPECT_EQ(plan.phase_of_step(step).batch_sequences, batches[size_t(step)]) << step;
        EXPECT_EQ(plan.tokens(step), tokens) << step;
        for (int64_t i = 0; i < batches[size_t(step)]; ++i)
            EXPECT_EQ(&plan.phase_of_sequence(sequences++), &plan.phase_of_step(step)) << step;
        tokens += lengths[size_t(step)] * batches[size_t(step)];
    }
    EXPECT_EQ(plan.tokens(9), tokens);
    EXPECT_EQ(&plan.phase_of_step(9), &plan.phases().back()) << "what would come next";
    EXPECT_EQ(&plan.phase_of_sequence(sequences), &plan.phases().back());
    EXPECT_EQ(batches_in_words(plan), "4 x 8, then 2 x 16, then 1 x 40");
}

TEST(TrainingPlan, steps_that_are_left_cost_what_their_phases_do) {
    const TrainingPlan plan(three_phases());
    const auto squared = [](int64_t length) { return double(length); };
    EXPECT_DOUBLE_EQ(plan.cost_from(0, squared), 96.0 * 8 + 64 * 16 + 160 * 40);
    EXPECT_DOUBLE_EQ(plan.cost_from(4, squared), 32.0 * 16 + 160 * 40);
    EXPECT_DOUBLE_EQ(plan.cost_from(9, squared), 0.0);
    EXPECT_DOUBLE_EQ(plan.mean_cost(squared), (96.0 * 8 + 64 * 16 + 160 * 40) / 320);
    EXPECT_DOUBLE_EQ(TrainingPlan(TrainingJob()).mean_cost(squared), 512.0) << "of a stage without steps";
}

TEST(TrainingPlan, micro_batches_are_those_of_the_phase) {
    TrainingJob job = three_phases();
    job.phases[0].micro_batch_sequences = 2;
    const TrainingPlan plan(job);
    EXPECT_EQ(micro_batch_sequences(plan.phases()[0], 2, false), 2);
    EXPECT_EQ(micro_batches(plan.phases()[0], 2, true), 2);
    EXPECT_EQ(micro_batch_sequences(plan.phases()[1], 1, false), 2);
    EXPECT_EQ(micro_batches(plan.phases()[1], 1, true), 2) << "one at a time";
}

constexpr const char* yaml_of_two =
    "distill:\n"
    "  phases:\n"
    "    - {tokens: 1e6, sequence_length: 512, batch_sequences: 32}\n"
    "    - tokens: 2000000\n"
    "      micro_batch_sequences: 1\n"
    "  batch_sequences: 4\n";

TEST(Phases, have_the_stages_values_where_they_give_no_other) {
    const Job job = parse_job(yaml_of_two, "job.yaml");
    ASSERT_EQ(job.distill.phases.size(), 2U);
    EXPECT_EQ(job.distill.tokens, 3000000) << "the sum";
    const TrainingPhase &first = job.distill.phases[0], &second = job.distill.phases[1];
    EXPECT_EQ(first.tokens, 1000000);
    EXPECT_EQ(first.sequence_length, 512);
    EXPECT_EQ(first.batch_sequences, 32);
    EXPECT_EQ(first.micro_batch_sequences, 0);
    EXPECT_EQ(second.sequence_length, 4096);
    EXPECT_EQ(second.batch_sequences, 4);
    EXPECT_EQ(second.micro_batch_sequences, 1);
    const std::string resolved = to_yaml(job);
    EXPECT_TRUE(contains(resolved,
                         "phases: [{tokens: 1000000, sequence_length: 512, batch_sequences: 32, micro_batch_sequences: "
                         "0}, {tokens: 2000000, sequence_length: 4096, batch_sequences: 4, micro_batch_sequences: 1}]"))
        << resolved;
    EXPECT_EQ(to_yaml(parse_job(resolved, "resolved")), resolved);
}

TEST(Phases, of_the_command_line_win) {
    const std::vector<std::string> overrides = {"distill.phases=[{tokens: 5000, sequence_length: 100}]",
                                                "distill.batch_sequences=10"};
    const Job job = parse_job(yaml_of_two, "job.yaml", overrides);
    ASSERT_EQ(job.distill.phases.size(), 1U);
    EXPECT_EQ(job.distill.tokens, 5000);
    EXPECT_EQ(job.distill.phases[0].batch_sequences, 10);
    const Job none = parse_job(yaml_of_two, "job.yaml", {"distill.phases=[]", "distill.tokens=7"});
    EXPECT_TRUE(none.distill.phases.empty());
    EXPECT_EQ(none.distill.tokens, 7);
}

TEST(Phases, that_are_wrong_name_line_and_key) {
    const auto problem = [](const std::string& yaml, const std::vector<std::string>& overrides = {}) {
        return error_text([&] { parse_job(yaml, "job.yaml", overrides); });
    };
    EXPECT_EQ(
        problem("align:\n  phases:\n    - {tokens: 5, sequence_lenght: 3}\n"),
        "job.yaml:3: unknown key \"align.phases[0].sequence_lenght\" (its value would have no effect) did you mean "
        "\"sequence_length\"?");
    EXPECT_EQ(problem("align:\n  phases:\n    - {tokens: 5}\n    - {tokens: 0}\n"),
              "job.yaml:4: \"align.phases[1].tokens\" is \"0\" (must be an integer, at least 1; unit: tokens)");
    EXPECT_EQ(problem("align:\n  phases:\n    - {sequence_length: 8}\n"),
              "job.yaml:3: \"align.phases[0]\" has no \"tokens\" (how long is the phase?) give it");
    EXPECT_EQ(problem("align: {phases: 5}\n"), "job.yaml:1: \"align.phases\" is \"5\" (must be a list of phases)");
    EXPECT_TRUE(contains(problem("align: {phases: [5]}\n"), "\"align.phases[0]\" is \"5\" (a phase holds keys"));
    EXPECT_TRUE(contains(problem("align: {phases: [{tokens: 5, tokens: 6}]}\n"), "is given twice"));
    EXPECT_EQ(problem("", {"align.phases=[{tokens: x}]"}),
              "--set align.phases=[{tokens: x}]: \"align.phases[0].tokens\" is \"x\" (must be an integer, at least 1; "
              "unit: tokens)");
}

class PhasesChecked : public testing::Test {
  protected:
    Findings check() const {
        Job job;
        job.align = align;
        job.evaluate.sequences = 0;
        return check_job(job, 2, std::nullopt, TokenCounts{10000, 10000000, 100});
    }
    /// Those of align.
    std::vector<std::string> problems() const {
        std::vector<std::string> found;
        for (const std::string& problem : check().problems)
            if (contains(problem, "align")) found.push_back(problem);
        return found;
    }
    PhasesChecked() {
        align.phases = {{1024, 64, 4, 0}, {4096, 512, 2, 0}};
        align.tokens = 5120;
        align.optimizer.warmup_steps = 0;
    }
    AlignJob align;
};

TEST_F(PhasesChecked, that_are_good_are_counted) {
    EXPECT_TRUE(problems().empty());
    const auto notes = check().notes;
    for (const char* note : {"align phase 1: 4 steps of 256 tokens", "align phase 2: 4 steps of 1024 tokens",
                             "align: 8 steps and 5120 tokens in 2 phases"})
        EXPECT_EQ(std::count(notes.begin(), notes.end(), note), 1) << note;
}

TEST_F(PhasesChecked, other_tokens_than_their_sum_are_refused) {
    align.tokens = 5000;
    ASSERT_EQ(problems().size(), 1U);
    EXPECT_EQ(problems()[0],
              "align.tokens is 5000 but the phases of align.phases have 5120 together (they are the stage) leave it "
              "out, or give 5120");
}

TEST_F(PhasesChecked, each_needs_a_step_and_sequences_that_ranks_can_share) {
    align.phases[0].tokens = 255;
    align.phases[1].batch_sequences = 3;
    align.phases[1].tokens = 4865;
    ASSERT_EQ(problems().size(), 2U);
    EXPECT_TRUE(contains(problems()[0], "align.phases[0].tokens is 255, less than one step of 4 x 64 = 256 tokens"));
    EXPECT_TRUE(contains(problems()[1], "align.phases[1].batch_sequences is 3 but 2 ranks share it"));
}

TEST_F(PhasesChecked, sequences_longer_than_the_corpus_are_refused) {
    align.phases[1] = {20002, 10001, 2, 0};
    align.tokens = 21026;
    ASSERT_EQ(problems().size(), 1U);
    EXPECT_TRUE(contains(problems()[0], "has 10000 tokens but align.phases have sequences of up to 10001"));
}

TEST_F(PhasesChecked, what_lengths_leave_unread_is_noted) {
    align.phases[0].sequence_length = 100;
    const auto notes = check().notes;
    EXPECT_TRUE(std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
        return contains(note, "align phase 1: 12 of every 512 tokens are not read");
    }));
}

/// Each phase has its share of a trial's steps, and all trials keep to the fraction of the tokens.
TEST(TrialPlan, of_phases) {
    DistillJob job;
    job.phases = {{8'000'000, 512, 32, 0}, {4'000'000, 8192, 4, 0}};
    job.tokens = 12'000'000;
    job.optimizer.race_fraction = 0.2;
    const auto plan = trial_plan("distill", job, 1, 40'000'000);
    ASSERT_TRUE(plan);
    const TrainingPlan stage(job), trial(plan->training);
    ASSERT_EQ(trial.phases().size(), 2U);
    EXPECT_EQ(trial.steps(), plan->trained_steps() + plan->measured_steps);
    EXPECT_EQ(trial.tokens(), plan->training.tokens);
    EXPECT_LE(plan->most_tokens(), 0.2 * 12e6);
    EXPECT_GT(plan->most_tokens(), 0.15 * 12e6);
    EXPECT_NEAR(double(trial.phases()[0].steps) / double(trial.steps()),
                double(stage.phases()[0].steps) / double(stage.steps()), 1.0 / double(trial.steps()));
    EXPECT_EQ(trial.phases()[0].batch_sequences, 32);
    EXPECT_EQ(trial.phases()[1].sequence_length, 8192 * trial.phases()[0].sequence_length / 512);
    EXPECT_FALSE(trial_plan("distill", job, 1, trial.blocks() * trial.block_length() - 1))
        << "some would be seen twice";
}

}  // namespace
}  // namespace amalgam
