// SPDX-License-Identifier: Apache-2.0
// Automatic learning rates before a run: how they are written, the rule of thumb, what a race may cost, what is said.
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "error_text.h"
#include "estimate/known_shapes.h"
#include "job/job_reader.h"
#include "job/job_writer.h"
#include "job/learning_rate_rule.h"
#include "job/learning_rate_trials.h"
#include "job/training_notes.h"
#include "job/training_plan.h"

namespace amalgam {
namespace {

constexpr int64_t large_corpus = std::numeric_limits<int64_t>::max();

TEST(AutomaticRates, are_the_default_of_every_stage_and_of_no_stage_of_the_reference) {
    const Job job = parse_job("", "job.yaml"), reference = parse_job("recipe: reference", "job.yaml");
    for (const auto& [stage, optimizer] :
         {std::pair("align", job.align.optimizer), std::pair("score", job.score.optimizer),
          std::pair("distill", job.distill.optimizer), std::pair("finetune", job.finetune.optimizer)}) {
        EXPECT_TRUE(automatic_rates(stage, optimizer).mixers) << stage;
        EXPECT_EQ(automatic_rates(stage, optimizer).rest, std::string(stage) != "align") << stage;
    }
    for (const auto& [stage, optimizer] :
         {std::pair("align", reference.align.optimizer), std::pair("score", reference.score.optimizer),
          std::pair("distill", reference.distill.optimizer), std::pair("finetune", reference.finetune.optimizer)}) {
        EXPECT_FALSE(automatic_rates(stage, optimizer).any()) << stage;
        EXPECT_EQ(warmup_steps(optimizer, 1000), 0) << stage;
    }
    EXPECT_EQ(reference.finetune.optimizer.learning_rate, 1e-5);
    EXPECT_EQ(reference.finetune.optimizer.learning_rate_rest, 1e-5);
}

TEST(AutomaticRates, are_written_auto_and_a_given_number_stays) {
    const Job job = parse_job(
        "align: {optimizer: {learning_rate: auto}}\ndistill: {optimizer: {learning_rate_rest: 0.003}}\n"
        "score: {optimizer: {learning_rate: 2e-4}}\n",
        "job.yaml", {"score.optimizer.learning_rate=auto"});
    EXPECT_FALSE(job.align.optimizer.learning_rate.has_value());
    EXPECT_FALSE(job.score.optimizer.learning_rate.has_value()) << "the command line wins";
    EXPECT_EQ(job.distill.optimizer.learning_rate_rest, 0.003);
    const std::string yaml = to_yaml(job);
    EXPECT_TRUE(contains(yaml, "learning_rate: auto\n"));
    EXPECT_TRUE(contains(yaml, "learning_rate_rest: 0.003\n"));
    EXPECT_EQ(to_yaml(parse_job(yaml, "resolved")), yaml);
    for (const char* wrong : {"-1", "Auto", "fast", "[1e-3]", "inf"}) {
        const std::string problem =
            error_text([&] { parse_job(text("align: {optimizer: {learning_rate: ", wrong, "}}"), "job.yaml"); });
        EXPECT_TRUE(contains(problem, "(must be a number or auto, at least 0)")) << problem;
    }
}

TEST(RuleOfThumb, is_what_was_measured_and_falls_with_the_width) {
    EXPECT_EQ(rule_of_thumb("align", 128).mixers, 6e-3);
    EXPECT_EQ(rule_of_thumb("align", 576).mixers, 6e-3);
    EXPECT_EQ(rule_of_thumb("distill", 128).mixers, 1e-3);
    EXPECT_NEAR(rule_of_thumb("distill", 576).mixers, 3e-4, 1e-6);
    EXPECT_EQ(rule_of_thumb("distill", 576).rest, 1e-4);
    EXPECT_DOUBLE_EQ(rule_of_thumb("score", 128).mixers, 1e-3 / 3);
    EXPECT_EQ(rule_of_thumb("distill", 1).rest, 1e-3);
    for (const char* stage : {"align", "score", "distill", "finetune"}) {
        EXPECT_DOUBLE_EQ(rule_of_thumb(stage, 2048).mixers, 0.5 * rule_of_thumb(stage, 1024).mixers) << stage;
        EXPECT_DOUBLE_EQ(rule_of_thumb(stage, 2048).rest, 0.5 * rule_of_thumb(stage, 1024).rest) << stage;
    }
    EXPECT_THROW(rule_of_thumb("evaluate", 576), std::logic_error);
}

TEST(TrialPlan, keeps_to_its_fraction_of_the_tokens) {
    int64_t races = 0;
    for (const int64_t tokens : {100'000, 1'000'000, 8'400'000, 30'000'000, 600'000'000})
        for (const int64_t length : {100, 512, 2048, 4096})
            for (const int64_t batch : {1, 8, 96})
                for (const char* stage : {"align", "score", "distill", "finetune"}) {
                    TrainingJob job;
                    job.tokens = tokens, job.sequence_length = length, job.batch_sequences = batch;
                    job.optimizer.race_fraction = 0.03;
                    const int64_t candidates = std::string(stage) == "score" ? 30 : 1;
                    const auto plan = trial_plan(stage, job, candidates, large_corpus);
                    if (!plan) continue;
                    ++races;
                    const double limit = std::string(stage) == "score" ? 0.09 : 0.03;  // of one candidate's
                    EXPECT_LE(plan->most_tokens(), limit * double(tokens) * 1.0000001);
                    EXPECT_GE(plan->trained_steps(), 16);
                    EXPECT_GE(plan->measured_steps, 4);
                    EXPECT_EQ(plan->training.batch_sequences, batch);
                    EXPECT_GE(plan->training.sequence_length, std::min<int64_t>(length, 128));
                    EXPECT_LE(plan->training.optimizer.warmup_steps, plan->trained_steps() / 4);
                    EXPECT_EQ(training_steps(plan->training), plan->trained_steps() + plan->measured_steps);
                }
    EXPECT_GT(races, 50);
}

TEST(TrialPlan, of_smollm2s_alignment_and_distillation) {
    AlignJob align;
    align.tokens = 8'400'000, align.batch_sequences = 16;
    align.optimizer.race_fraction = 0.03;
    const auto plan = trial_plan("align", align, 1, 40'000'000);
    ASSERT_TRUE(plan);
    EXPECT_EQ(plan->most_trials, 4);
    EXPECT_EQ(plan->training.sequence_length, 128);  // 63000 tokens a trial: 30 steps of 16 x 128
    EXPECT_EQ(plan->trained_steps(), 24);
    EXPECT_EQ(plan->measured_steps, 6);
    EXPECT_EQ(plan->training.optimizer.warmup_steps, 6) << "a quarter, of 20";
    DistillJob distill;
    distill.tokens = 30'000'000, distill.sequence_length = 2048, distill.batch_sequences = 8;
    distill.optimizer.race_fraction = 0.03;
    const auto both = trial_plan("distill", distill, 1, 40'000'000);
    ASSERT_TRUE(both);
    EXPECT_EQ(both->most_trials, 6);
    EXPECT_EQ(both->training.sequence_length, 256);  // 150000 tokens: 73 steps of 8 x 256
    distill.optimizer.learning_rate_rest = 1e-4;
    EXPECT_EQ(trial_plan("distill", distill, 1, 40'000'000)->most_trials, 4);
}

TEST(TrialPlan, is_not_there_where_nothing_is_to_be_found_or_tokens_are_few) {
    DistillJob job;
    job.tokens = 30'000'000, job.sequence_length = 512, job.batch_sequences = 8;
    EXPECT_FALSE(trial_plan("distill", job, 1, large_corpus)) << "nobody asked for a race";
    job.optimizer.race_fraction = 0.03;
    EXPECT_TRUE(trial_plan("distill", job, 1, large_corpus));
    EXPECT_FALSE(trial_plan("distill", job, 1, 30'000)) << "sequences would be seen twice";
    job.optimizer.learning_rate = job.optimizer.learning_rate_rest = 1e-3;
    EXPECT_FALSE(trial_plan("distill", job, 1, large_corpus)) << "both rates are given";
    job.optimizer.learning_rate.reset();
    EXPECT_TRUE(trial_plan("distill", job, 1, large_corpus));
    job.optimizer.race_fraction = 0.0;
    EXPECT_FALSE(trial_plan("distill", job, 1, large_corpus));
    job.optimizer.race_fraction = 0.03;
    job.tokens = 100'000;
    EXPECT_FALSE(trial_plan("distill", job, 1, large_corpus));
    job.tokens = 0;
    EXPECT_FALSE(trial_plan("distill", job, 1, large_corpus));
}

class TrainingNotes : public testing::Test {
  protected:
    TrainingNotes() {
        teacher.hidden_size = 576;
        job.align.tokens = 8'400'000, job.align.batch_sequences = 16;
        job.distill.tokens = 30'000'000, job.distill.sequence_length = 2048, job.distill.batch_sequences = 8;
    }
    int64_t notes_with(const std::string& part) const {
        const auto notes = training_notes(job, teacher, large_corpus);
        return std::count_if(notes.begin(), notes.end(), [&](const std::string& one) { return contains(one, part); });
    }

    Job job;
    ModelConfig teacher = find_shape("qwen2.5-1.5b");
};

TEST_F(TrainingNotes, tell_of_the_race) {
    EXPECT_EQ(notes_with("a race"), 0);
    EXPECT_EQ(notes_with("align: learning rate auto: rule of thumb 0.006 (mixers)"), 1);
    job.align.optimizer.race_fraction = job.distill.optimizer.race_fraction = 0.03;
    EXPECT_EQ(
        notes_with("align: learning rate auto: rule of thumb 0.006 (mixers), then a race of at most 4 trials of 24 "
                   "steps of 16 x 128 tokens, 2.9 % of the stage's tokens"),
        1);
    EXPECT_EQ(notes_with("distill: learning rate auto: rule of thumb 0.000300347 (mixers) 0.0001 (rest), then a race"),
              1);
    job.distill.tokens = 50'000;
    EXPECT_EQ(notes_with("0.0001 (rest), without a race: too few tokens for its trials"), 1);
    job.distill.optimizer.learning_rate = 1e-3;
    EXPECT_EQ(notes_with("distill: learning rate auto: rule of thumb 0.0001 (rest)"), 1);
}

TEST_F(TrainingNotes, warn_of_rates_far_from_the_rule_only) {
    EXPECT_EQ(notes_with("the rule of thumb for hidden size"), 0);
    job.distill.optimizer.learning_rate = 1e-4;  // 3 times below
    EXPECT_EQ(notes_with("the rule of thumb for hidden size"), 0);
    job.distill.optimizer.learning_rate = 3e-5;
    EXPECT_EQ(
        notes_with("distill.optimizer.learning_rate is 3e-05, 10 times below the rule of thumb for hidden size 576"),
        1);
    job.align.optimizer.learning_rate = 0.03;
    EXPECT_EQ(notes_with("align.optimizer.learning_rate is 0.03, 5 times above the rule of thumb"), 1);
    job.distill.optimizer.learning_rate_rest = 0.0;  // what is frozen on purpose is not far off
    EXPECT_EQ(notes_with("learning_rate_rest is"), 0);
    job.recipe = Recipe::reference;
    EXPECT_EQ(notes_with("the rule of thumb for hidden size"), 0);
}

TEST_F(TrainingNotes, say_what_tokens_are_good_for) {
    EXPECT_EQ(notes_with("steps are few"), 0);
    job.align.batch_sequences = 96;
    EXPECT_EQ(notes_with("align: 170 steps are few"), 1);
    EXPECT_EQ(notes_with("tokens per parameter: more will lower the KL"), 1);
    job.distill.tokens = 600'000'000;
    EXPECT_EQ(notes_with("tokens per parameter: more"), 0);
}

}  // namespace
}  // namespace amalgam
