// SPDX-License-Identifier: Apache-2.0
// Runs whose learning rates are automatic, from the first trial to the stages that train with what was found.
#include "small_run.h"
#include "stages/learning_rate_file.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class AutomaticRun : public test::SmallRun {
  protected:
    AutomaticRun() {
        job.evaluate.sequences = 0;
        for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                                   static_cast<TrainingJob*>(&job.distill)}) {
            stage->optimizer.learning_rate.reset();
            stage->optimizer.learning_rate_rest.reset();
        }
        // A corpus and a race that are large enough for 20 steps a trial of the two sequences of 16 tokens.
        test::write_tokens(folder / "train.h5", test::simple_text(200 * test::small_length, test::small_vocabulary, 1),
                           test::small_vocabulary);
        for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.distill)}) {
            stage->tokens = 20 * 6 * test::small_length;
            stage->optimizer.race_fraction = 0.0;
        }
        job.align.optimizer.race_fraction = 4.0;
    }
    void TearDown() override { unsetenv("AMALGAM_FAULT"); }

    LearningRateRecord record(const std::string& stage) const {
        return read_learning_rates(result("learning_rates/" + stage + ".h5"));
    }
    std::string log() const { return test::content_of(result("log.txt")); }
};

TEST_F(AutomaticRun, finds_rates_and_trains_with_them_on_any_number_of_ranks) {
    job.name = "one";
    const auto one = run(1);
    expect_end(one, 0,
               {"align: race of learning rates: at most 4 trials of 16 steps of 6 x 16 tokens",
                "score: learning rate 0.000333333 (mixers) and 0.000333333 (rest), by the rule of thumb",
                "distill: learning rate 0.001 (mixers) and 0.001 (rest), by the rule of thumb", "finished in"});
    const auto folder_of_one = run_folder();
    const LearningRateRecord align = record("align");
    ASSERT_TRUE(align.chosen);
    ASSERT_GE(align.trials.size(), 2u);
    EXPECT_EQ(align.rule.mixers, 6e-3);
    for (const RateTrial& trial : align.trials) {
        EXPECT_TRUE(is_finite(trial));
        EXPECT_EQ(trial.losses.size(), 4u);
    }
    EXPECT_NE(align.trials[0].losses, align.trials[1].losses);
    EXPECT_EQ(*align.chosen, rates_at(align.rule, best_trial({true, false}, align.trials)));
    // The stage trains with the chosen rate: the same job with this number has the same result, another has not.
    const auto with = [&](const std::string& name, double rate) {
        job.name = name;
        job.align.optimizer.learning_rate = rate;
        expect_end(run(1), 0, {"finished in"});
        EXPECT_FALSE(std::filesystem::exists(result("learning_rates/align.h5"))) << "a given number is used as it is";
        const auto different =
            differing_datasets(folder_of_one / "checkpoints/align.h5", result("checkpoints/align.h5"));
        job.align.optimizer.learning_rate.reset();
        return different;
    };
    EXPECT_EQ(with("given", align.chosen->mixers), Names{});
    EXPECT_NE(with("other", 1.1 * align.chosen->mixers), Names{});

    job.name = "three";
    expect_end(run(3), 0, {"finished in"});
    for (const char* file : {"learning_rates/align.h5", "learning_rates/score.h5", "learning_rates/distill.h5"})
        EXPECT_EQ(differing_datasets(folder_of_one / file, result(file), test::times_and_places), Names{}) << file;
    EXPECT_EQ(differing_datasets(folder_of_one / "scores.h5", result("scores.h5"), test::times_and_places), Names{});
}

TEST_F(AutomaticRun, races_for_scores_and_sharded_students_too) {
    job.align.tokens = 0;
    for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.score), static_cast<TrainingJob*>(&job.distill)}) {
        stage->batch_sequences = 2;
        stage->tokens = 20 * 2 * test::small_length;
    }
    job.score.optimizer.race_fraction = 2.0;  // of three candidates: 20 steps for each of six trials
    job.distill.optimizer.race_fraction = 4.0;
    job.distill.optimizer.learning_rate_rest = 3e-3;
    job.name = "whole";
    expect_end(run(1), 0, {"score: race of learning rates: at most 6 trials", "distill: race of learning rates"});
    const auto whole = run_folder();
    const auto trials = record("score").trials;
    EXPECT_GE(trials.size(), 4u);
    EXPECT_GE(record("distill").trials.size(), 3u);
    job.name = "sharded";
    job.sharding.strategy = ShardingSetting::full;
    expect_end(run(2, 170.0), 0, {"distill: sharding full over 2 ranks", "finished in"});
    for (const char* file : {"learning_rates/score.h5", "learning_rates/distill.h5", "checkpoints/distill.h5"})
        EXPECT_EQ(differing_datasets(whole / file, result(file), test::times_and_places), Names{}) << file;
    job.name = "pieces";
    job.sharding.strategy = ShardingSetting::automatic;
    job.sharding.context = 2;
    job.distill.tokens = 0;
    expect_end(run(2, 170.0), 0, {"score: race of learning rates: at most 6 trials", "finished in"});
    const auto in_pieces = record("score").trials;
    ASSERT_EQ(in_pieces.size(), trials.size());
    for (size_t i = 0; i < trials.size(); ++i) {
        EXPECT_EQ(in_pieces[i].position, trials[i].position);
        EXPECT_NEAR(in_pieces[i].losses[0] / trials[i].losses[0], 1.0, 1e-2) << i;
    }
}

TEST_F(AutomaticRun, a_killed_race_does_not_repeat_trials) {
    job.name = "undisturbed";
    expect_end(run(1), 0, {"finished in"});
    const auto undisturbed = run_folder();
    const size_t trials = record("align").trials.size();
    job.name = "killed";
    setenv("AMALGAM_FAULT", "learning_rates.trial:throw:step=1", 1);
    EXPECT_NE(run(2).status, 0);
    unsetenv("AMALGAM_FAULT");
    ASSERT_EQ(record("align").trials.size(), 1u);
    ASSERT_FALSE(record("align").chosen);
    const auto second = run(2);
    expect_end(second, 0, {"align: learning rates: 1 trials were done before", "finished in"});
    EXPECT_EQ(record("align").trials.size(), trials);
    for (const char* file : {"learning_rates/align.h5", "checkpoints/align.h5", "checkpoints/distill.h5"})
        EXPECT_EQ(differing_datasets(undisturbed / file, result(file), test::times_and_places), Names{}) << file;
    // Nor does a run whose race is over: the trials would be struck.
    for (const char* file :
         {"checkpoints/align.h5", "checkpoints/distill.h5", "selection.h5", "scores.h5", "candidates"})
        std::filesystem::remove_all(result(file));
    setenv("AMALGAM_FAULT", "learning_rates.trial:throw", 1);
    expect_end(run(2), 0, {"align: learning rate ", "align: finished"});
}

TEST_F(AutomaticRun, trials_that_diverge_are_not_chosen_and_end_nothing) {
    setenv("AMALGAM_FAULT", "align.trial.gradient:nan:step=3", 1);  // of every trial
    expect_end(run(2), 0, {"diverged", "the lowest that was tried, though no trial ended with finite losses"});
    unsetenv("AMALGAM_FAULT");
    const LearningRateRecord align = record("align");
    for (const RateTrial& trial : align.trials) EXPECT_FALSE(is_finite(trial));
    EXPECT_DOUBLE_EQ(align.chosen->mixers, 6e-3 / 9);
}

TEST_F(AutomaticRun, damaged_rates_are_not_used) {
    expect_end(run(1), 0, {});
    const auto file = result("learning_rates/distill.h5");
    test::put(file, test::content_of(file).substr(0, 900));
    std::filesystem::remove(result("checkpoints/distill.h5"));
    expect_end(run(1), 3, {"learning_rates/distill.h5"});
}

}  // namespace
}  // namespace amalgam
