// SPDX-License-Identifier: Apache-2.0
// A run whose stages have phases is killed in every one of them and ends with the bits of a run that nobody disturbed,
// on another number of ranks.
#include "../stages/small_run.h"
#include "selection/score_file.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

namespace fs = std::filesystem;

class Phases : public test::SmallRun {
  protected:
    Phases() {
        job.evaluate.sequences = 0;
        job.checkpoint.every_steps = 1;
        for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                                   static_cast<TrainingJob*>(&job.distill)}) {
            stage->phases = {{3 * 12 * 8, 8, 12, 0}, {2 * 6 * 48, 48, 6, 0}};
            stage->tokens = 3 * 12 * 8 + 2 * 6 * 48;
        }
    }

    /// Rank 0 dies before that step.
    void killed_at(const std::string& stage, int64_t step, const std::vector<std::string>& said) {
        setenv("AMALGAM_FAULT", text(stage, ".step:kill:rank=0:step=", step).c_str(), 1);
        const auto finished = run(2);
        unsetenv("AMALGAM_FAULT");
        EXPECT_NE(finished.status, 0);
        for (const std::string& part : said)
            EXPECT_NE(finished.output.find(part), std::string::npos) << part << " is missing in\n" << finished.output;
    }
};

TEST_F(Phases, of_a_run_that_is_killed_in_each_of_them) {
    killed_at("align", 1, {"align: phase 1 of 2, steps 1 to 3, of 12 x 8 tokens"});
    killed_at("align", 3, {"align: phase 2 of 2, steps 4 to 5, of 6 x 48 tokens"});
    killed_at("align", 4, {"align: goes on from step"});
    killed_at("score", 4, {"align: finished"});
    killed_at("distill", 4, {"score: finished"});
    expect_end(run(3), 0, {"distill: goes on from step", "distill: finished"});
    const auto disturbed = run_folder();
    job.name = "undisturbed";
    expect_end(run(1), 0, {"distill: 5 steps, 864 tokens"});
    EXPECT_EQ(differing_datasets(disturbed / "scores.h5", result("scores.h5"), test::times_and_places), Names{});
    for (const char* file : {"checkpoints/align.h5", "selection.h5", "checkpoints/distill.h5"})
        EXPECT_EQ(differing_datasets(disturbed / file, result(file)), Names{}) << file;
    const ScoreTable scores = read_scores(result("scores.h5"));
    EXPECT_EQ(scores.candidates.front().measured_tokens, (std::vector<int64_t>{0, 192, 864}));
    EXPECT_NE(test::content_of(result("metrics.csv")).find(",distill,,,4,576,"), std::string::npos);
}

/// What the program advises somebody whose memory was too small for a step.
TEST_F(Phases, go_on_with_smaller_micro_batches_and_chunks) {
    const std::vector<TrainingJob*> stages = {&job.align, &job.score, &job.distill};
    const auto set_micro_batches = [&](int64_t first, int64_t second) {
        for (TrainingJob* stage : stages) {
            stage->micro_batch_sequences = first;
            stage->phases[0].micro_batch_sequences = first;
            stage->phases[1].micro_batch_sequences = second;
        }
    };
    set_micro_batches(6, 3);
    job.name = "undisturbed";
    expect_end(run(2), 0, {"finished in"});
    const fs::path expected = run_folder();
    job.name = "run";
    killed_at("align", 4, {"align: phase 2 of 2"});
    set_micro_batches(2, 1);
    killed_at("score", 4, {"other bits", "align.micro_batch_sequences: was 6, now 2", "align: finished"});
    set_micro_batches(3, 1);
    job.score.loss_chunk_tokens = job.distill.loss_chunk_tokens = 7;
    killed_at("distill", 4, {"distill.loss_chunk_tokens: was 0, now 7", "score: finished"});
    set_micro_batches(1, 1);
    expect_end(run(2), 0, {"distill.phases: was [{", "distill: goes on from step", "distill: finished"});
    for (const char* file : {"checkpoints/align.h5", "checkpoints/distill.h5"})
        expect_near_weights(expected / file, result(file));
    const auto scores = read_scores(result("scores.h5")).scored(),
               before = read_scores(expected / "scores.h5").scored();
    ASSERT_EQ(scores.size(), before.size());
    for (size_t i = 0; i < scores.size(); ++i) EXPECT_NEAR(scores[i].score / before[i].score, 1.0, 1e-3) << i;
    // What does change results is still refused.
    job.distill.phases[1].batch_sequences = 3;
    expect_end(run(1), 2, {"another job"});
}

}  // namespace
}  // namespace amalgam
