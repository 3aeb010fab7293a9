// SPDX-License-Identifier: Apache-2.0
// The whole pipeline as users start it, on one rank and on several.
#include "../questions/recall_contents.h"
#include "../selection/made_up_scores.h"
#include "checkpoints/checkpoint.h"
#include "evaluation/statistics.h"
#include "selection/selection.h"
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using test::scores_of;

class Pipeline : public test::SmallRun {
  protected:
    /// Candidates and steps of the rows of `score` in metrics.csv.
    std::vector<std::string> scored_steps() const {
        std::vector<std::string> found;
        std::istringstream rows(test::content_of(result("metrics.csv")));
        for (std::string row; std::getline(rows, row);) {
            std::vector<std::string> fields;
            std::istringstream stream(row);
            for (std::string field; std::getline(stream, field, ',');) fields.push_back(field);
            if (fields.at(1) == "score") found.push_back(fields.at(2) + " " + fields.at(4) + " " + fields.at(5));
        }
        std::sort(found.begin(), found.end());
        return found;
    }
};

/// P10. 12 sequences of a step can be shared by 1, 2, 3 and 4 ranks.
TEST_F(Pipeline, gives_the_same_bits_on_any_number_of_ranks) {
    for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                               static_cast<TrainingJob*>(&job.distill)}) {
        stage->batch_sequences = 12;
        stage->tokens = 4 * 12 * test::small_length;
    }
    job.select.options["budget"] = "2";
    job.name = "one";
    expect_end(run(1), 0, {"transfer: finished", "align: finished", "score: finished", "evaluate: finished"});
    const auto one = run_folder();
    const auto steps_of_one = scored_steps();
    EXPECT_EQ(steps_of_one.size(), size_t(test::small_layers * 4));
    for (const int ranks : {2, 3, 4}) {
        job.name = text("on-", ranks);
        expect_end(run(ranks), 0, {text(ranks, " ranks"), "score: finished"});
        EXPECT_EQ(scored_steps(), steps_of_one) << "rows of all candidates, whichever group trained them";
        using Names = std::vector<std::string>;
        EXPECT_EQ(differing_datasets(one / "scores.h5", result("scores.h5"), test::times_and_places), Names{}) << ranks;
        for (const char* file : {"checkpoints/transfer.h5", "checkpoints/align.h5", "selection.h5",
                                 "checkpoints/distill.h5", "evaluation.h5"})
            EXPECT_EQ(differing_datasets(one / file, result(file)), Names{}) << file << " on " << ranks;
    }

    const ScoreTable table = read_scores(one / "scores.h5");
    ASSERT_EQ(int64_t(table.candidates.size()), test::small_layers);
    const std::vector<double> scores = scores_of(table);
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    const Selection selection = read_selection(one / "selection.h5");
    EXPECT_EQ(selection.rule, "kl_guided");
    ASSERT_EQ(selection.order.size(), 2U);
    EXPECT_EQ(selection.order[0], best);
    EXPECT_EQ(Checkpoint(one / "checkpoints/distill.h5").spec().layout, selection.layout);
    for (int64_t c = 0; c < test::small_layers; ++c) {
        const CandidateResult& candidate = table.candidates[size_t(c)];
        EXPECT_EQ(candidate.number, c);
        EXPECT_EQ(candidate.candidate.layout, keep_softmax(test::small_layers, job.student.mixer, {c}));
        EXPECT_EQ(candidate.measured_tokens, (std::vector<int64_t>{0, 384, 768}));
        EXPECT_EQ(candidate.train_loss.size(), 4U);
    }
}

TEST_F(Pipeline, stages_do_what_they_are_for) {
    test::set_steps(job.align, 60);
    test::set_steps(job.distill, 60);
    job.peak_flops = "auto";
    expect_end(run(2), 0, {"Tflop/s", "MFU"});
    const std::string metrics = test::content_of(result("metrics.csv"));
    // Main losses of the first and the last step.
    auto loss = [&](const std::string& stage, int64_t step) {
        std::istringstream rows(metrics);
        for (std::string row; std::getline(rows, row);) {
            const std::string wanted = "," + stage + ",,," + std::to_string(step) + ",";
            const size_t at = row.find(wanted);
            if (at == std::string::npos) continue;
            const size_t tokens_end = row.find(',', at + wanted.size());
            return std::stod(row.substr(tokens_end + 1));
        }
        ADD_FAILURE() << "no row of step " << step << " of " << stage << " in\n" << metrics;
        return 0.0;
    };
    EXPECT_LT(loss("align", 60), 0.9 * loss("align", 1));
    EXPECT_LT(loss("distill", 60), 0.9 * loss("distill", 1));

    const ScoreTable table = read_scores(result("scores.h5"));
    for (const CandidateResult& candidate : table.candidates)
        EXPECT_LT(-candidate.score(), mean_and_error(table.all_linear_kl).mean)
            << "a restored layer and some training must bring the student nearer";
    const H5File evaluation = H5File::open(result("evaluation.h5"));
    EXPECT_EQ(evaluation.read_doubles("/kl")[0], 0.0);
    EXPECT_LT(evaluation.read_doubles("/kl")[1], mean_and_error(table.all_linear_kl).mean);
    EXPECT_EQ(evaluation.read_integers("/answer_count")[0], 3);
}

/// Selecting and all that follows leaves scores.h5 as the race wrote it, and so does selecting again.
TEST_F(Pipeline, later_starts_do_nothing_twice_and_no_other_job) {
    job.evaluate.sequences = 0;
    expect_end(run(1), 0, {});
    const auto before = results();
    EXPECT_EQ(read_selection(result("selection.h5")).order.size(), 1U);
    EXPECT_FALSE(H5File::open(result("scores.h5")).has("/selection"));
    expect_end(run(2), 0,
               {"transfer: done before", "align: done before", "score: done before", "select: done before",
                "distill: done before"});
    EXPECT_EQ(results(), before);
    std::filesystem::remove(result("selection.h5"));
    expect_end(run(1), 0, {"score: done before", "select: finished", "* layer"});
    EXPECT_EQ(test::content_of(result("scores.h5")), before.at("scores.h5"));
    const auto again = results();
    job.score.temperature = 2.0;
    expect_end(run(2), 2, {run_folder().string(), "score.temperature: was 1.0, now 2.0"});
    EXPECT_EQ(results(), again);
}

/// What only took space may be removed; what something was made of is not made again beside it.
TEST_F(Pipeline, results_that_were_removed_are_made_again_only_where_that_mixes_nothing) {
    test::set_steps(job.finetune, 2);
    job.export_to.formats = {"qwen3_5"};
    expect_end(run(1), 0, {});
    const auto remove = [&](std::initializer_list<const char*> files) {
        for (const char* file : files) std::filesystem::remove_all(result(file));
    };
    remove({"checkpoints/transfer.h5", "checkpoints/align.h5", "checkpoints/distill.h5", "scores.h5", "candidates"});
    const auto small = results();
    expect_end(run(2), 0,
               {"transfer: not run: its result is not there", "align: not run", "score: not run", "select: done before",
                "distill: not run", "finetune: done before", "export: done before"});
    EXPECT_EQ(results(), small);
    remove({"evaluation.h5"});
    expect_end(run(2), 0, {"distill: not run", "evaluate: finished"});
    EXPECT_EQ(results().size(), small.size());

    remove({"checkpoints/finetune.h5"});
    const auto left = results();
    expect_end(run(2), 2,
               {run_folder().string(), "the result of align is not there",
                "remove these, which are then made again:\n  selection.h5\n  evaluation.h5\n  student/"});
    EXPECT_EQ(results(), left);
    remove({"selection.h5", "evaluation.h5", "student"});
    expect_end(run(2), 0, {"transfer: finished", "align: finished", "score: finished", "export: finished"});

    remove({"checkpoints/finetune.h5"});
    expect_end(run(2), 2, {"the result of finetune is not there", "again:\n  evaluation.h5\n  student/"});
    remove({"evaluation.h5", "student", "checkpoints/transfer.h5", "checkpoints/align.h5"});
    expect_end(run(2), 0, {"align: not run", "distill: done before", "finetune: finished", "export: finished"});
}

/// Half a stage was trained from the weights that are gone.
TEST_F(Pipeline, a_stage_on_the_way_does_not_go_on_from_other_weights) {
    job.select.rule = "uniform";
    job.score.tokens = 0;
    job.checkpoint.every_steps = 2;
    job.checkpoint.background = BackgroundSaving::never;
    setenv("AMALGAM_FAULT", "distill.step:throw:step=3", 1);
    EXPECT_NE(run(1).status, 0);
    unsetenv("AMALGAM_FAULT");
    std::filesystem::remove(result("checkpoints/align.h5"));
    expect_end(run(1), 2, {"the result of align is not there", "again:\n  checkpoints/distill-00000002.h5"});
    std::filesystem::remove(result("checkpoints/distill-00000002.h5"));
    expect_end(run(1), 0, {"align: finished", "select: done before", "distill: finished"});
}

TEST_F(Pipeline, rules_without_scores_skip_the_race) {
    job.select.rule = "explicit";
    job.select.options["layers"] = std::vector<int64_t>{3, 1};
    job.score.tokens = 0;
    job.align.tokens = 0;
    const auto finished = run(2);
    expect_end(finished, 0, {"softmax at {1, 3}"});
    EXPECT_EQ(finished.output.find("score:"), std::string::npos) << finished.output;
    EXPECT_FALSE(std::filesystem::exists(result("checkpoints/align.h5")));
    EXPECT_FALSE(std::filesystem::exists(result("scores.h5")));
    EXPECT_EQ(read_selection(result("selection.h5")).order, (std::vector<int64_t>{3, 1}));
    EXPECT_EQ(softmax_layers(Checkpoint(result("checkpoints/distill.h5")).spec().layout), (std::vector<int64_t>{1, 3}));
}

TEST_F(Pipeline, finetune_follows_distill) {
    job.select.rule = "all_linear";
    job.score.tokens = 0;
    test::set_steps(job.finetune, 2);
    expect_end(run(2), 0, {"finetune: finished"});
    EXPECT_EQ(Checkpoint(result("checkpoints/finetune.h5")).state().stage, "finetune");
}

/// Every training stage has questions among its sequences.
TEST_F(Pipeline, questions_are_trained_on_by_any_number_of_ranks) {
    test::set_steps(job.finetune, 2);
    for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                               static_cast<TrainingJob*>(&job.distill), static_cast<TrainingJob*>(&job.finetune)}) {
        stage->question_fraction = 0.5;
        stage->question_kinds = {"noise", "text"};
        stage->sequence_length *= 2;
        stage->tokens *= 2;
    }
    job.name = "one";
    expect_end(run(1), 2,
               {"align.question_fraction asks some", "score.question_fraction", "distill.question_fraction",
                "finetune.question_fraction", "inputs/recall_wording.py"});
    test::write_wording(job.data.validation, test::small_wording());
    expect_end(run(1), 0, {"finetune: finished"});
    const auto one = run_folder();
    job.name = "two";
    expect_end(run(2), 0, {"finetune: finished"});
    for (const char* file : {"checkpoints/align.h5", "checkpoints/distill.h5", "checkpoints/finetune.h5"})
        EXPECT_EQ(differing_datasets(one / file, result(file)), std::vector<std::string>{}) << file;
    EXPECT_EQ(differing_datasets(one / "scores.h5", result("scores.h5"), test::times_and_places),
              std::vector<std::string>{});
    job.name = "text";
    job.distill.question_fraction = 0.0;
    expect_end(run(1), 0, {"finetune: finished"});
    EXPECT_EQ(differing_datasets(one / "checkpoints/align.h5", result("checkpoints/align.h5")),
              std::vector<std::string>{});
    EXPECT_NE(differing_datasets(one / "checkpoints/distill.h5", result("checkpoints/distill.h5")),
              std::vector<std::string>{});
}

/// Models as small as these are not sharded by themselves.
TEST_F(Pipeline, groups_of_ranks_may_share_a_candidate) {
    job.evaluate.sequences = 0;
    const auto one = undisturbed();
    job.score.ranks_per_candidate = 2;
    expect_end(run(2), 0, {"1 groups of 2 ranks", "align: sharding none over 2 ranks (auto: about"});
    EXPECT_EQ(differing_datasets(one / "scores.h5", result("scores.h5"), test::times_and_places),
              std::vector<std::string>{});
}

}  // namespace
}  // namespace amalgam
