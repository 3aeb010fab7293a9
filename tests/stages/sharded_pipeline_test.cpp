// SPDX-License-Identifier: Apache-2.0
// Whole runs whose models are spread over ranks, and candidates trained in step, against runs without either.
#include "../evaluation/request_contents.h"
#include "../questions/recall_contents.h"
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class ShardedPipeline : public test::SmallRun {
  protected:
    void expect_same_results(const std::filesystem::path& a, const std::filesystem::path& b) const {
        EXPECT_EQ(differing_datasets(a / "scores.h5", b / "scores.h5", test::times_and_places), Names{});
        for (const char* file :
             {"checkpoints/align.h5", "checkpoints/distill.h5", "checkpoints/finetune.h5", "evaluation.h5"})
            EXPECT_EQ(differing_datasets(a / file, b / file), Names{}) << file;
    }
};

TEST_F(ShardedPipeline, gives_the_bits_of_an_unsharded_run) {
    test::set_steps(job.finetune, 2);
    job.name = "whole";
    expect_end(run(1), 0, {"finished in"});
    const auto whole = run_folder();
    job.sharding.strategy = ShardingSetting::full;
    job.sharding.activations = Activations::recompute;
    job.score.ranks_per_candidate = 3;
    job.name = "full";
    expect_end(run(3), 0, {"align: sharding full over 3 ranks", "score: sharding full over 3 ranks", "finished in"});
    expect_same_results(whole, run_folder());
    job.sharding.strategy = ShardingSetting::optimizer;
    job.score.ranks_per_candidate = 2;
    job.name = "optimizer";
    expect_end(run(2), 0, {"distill: sharding optimizer over 2 ranks", "finished in"});
    expect_same_results(whole, run_folder());
}

/// Every rank answers other requests and questions, and one has none of a kind: a hang would be this test's failure.
TEST_F(ShardedPipeline, requests_and_recall_questions_are_answered_as_by_an_unsharded_run) {
    job.data.validation = (folder / "sentences.h5").string();
    test::write_tokens(job.data.validation, test::sentences(400), test::small_vocabulary);
    test::write_wording(job.data.validation, test::small_wording());
    job.evaluate.recall = {
        .questions = 1, .kinds = {"text"}, .lengths = {64, 70, 80}, .depths = {50}};  // three batches
    test::RequestContents requests{test::small_vocabulary};
    requests.add({1, 2, 3, 4, 5, 6}, 4, 0, 0);
    requests.add({7, 8, 9}, 1, 0, 0);
    requests.add({10, 11, 12, 13}, 2, 0, 0);
    requests.add({14, 15, 16}, 3, 5, 1);
    requests.write(folder / "requests.h5");
    job.evaluate.requests = (folder / "requests.h5").string();
    job.score.tokens = 0;
    job.select.rule = "uniform";
    job.name = "whole";
    expect_end(run(1), 0,
               {"evaluate: 4 requests answered by each model", "evaluate: 3 recall questions answered by each model",
                "at 70 tokens"});
    const auto whole = run_folder();
    for (const auto strategy : {ShardingSetting::full, ShardingSetting::optimizer}) {
        job.sharding.strategy = strategy;
        job.name = name_of(strategy);
        expect_end(run(2), 0,
                   {"evaluate: sharding " + job.name + " over 2 ranks", "4 requests answered by each model"});
        EXPECT_EQ(differing_datasets(whole / "evaluation.h5", run_folder() / "evaluation.h5"), Names{}) << job.name;
    }
    EXPECT_TRUE(H5File::open(result("evaluation.h5")).has("/requests/student/loglikelihood"));
    EXPECT_EQ(H5File::open(result("evaluation.h5")).describe("/recall/right").shape,
              (std::vector<int64_t>{2, 1, 3, 1, 1}));
}

TEST_F(ShardedPipeline, an_untrained_hybrid_is_the_same_however_many_ranks_made_it) {
    job.align.tokens = job.score.tokens = job.distill.tokens = 0;
    job.select.rule = "uniform";
    job.name = "one";
    expect_end(run(1), 0, {"finished in"});
    const auto one = run_folder();
    job.sharding.strategy = ShardingSetting::full;
    job.name = "three";
    expect_end(run(3), 0, {"distill: sharding full over 3 ranks", "finished in"});
    for (const char* file : {"checkpoints/transfer.h5", "checkpoints/distill.h5", "evaluation.h5"})
        EXPECT_EQ(differing_datasets(one / file, run_folder() / file), Names{}) << file;
}

TEST_F(ShardedPipeline, candidates_in_step_score_as_one_at_a_time) {
    job.evaluate.sequences = 0;
    job.score.teacher_cache_gib = 0.0;
    job.score.candidates_in_step = 1;
    job.name = "one-at-a-time";
    expect_end(run(1), 0, {});
    const auto one = run_folder();
    job.score.candidates_in_step = 3;
    job.name = "in-step";
    expect_end(run(2), 0, {"candidates are trained in step"});
    EXPECT_EQ(differing_datasets(one / "scores.h5", run_folder() / "scores.h5", test::times_and_places), Names{});
    job.score.candidates_in_step = 0;
    job.name = "as-many-as-fit";
    expect_end(run(1), 0, {"candidates are trained in step"});
    EXPECT_EQ(differing_datasets(one / "scores.h5", run_folder() / "scores.h5", test::times_and_places), Names{});
}

}  // namespace
}  // namespace amalgam
