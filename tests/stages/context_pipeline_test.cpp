// SPDX-License-Identifier: Apache-2.0
// Whole runs in which ranks share sequences (sharding.context).
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;
namespace fs = std::filesystem;

class ContextPipeline : public test::SmallRun {
  protected:
    ContextPipeline() {
        test::set_steps(job.finetune, 3);
        job.score.tokens = 0;
        job.select.rule = "uniform";
    }

    /// Losses of all steps of the training stages, in their order; those of align are followed by its layers'.
    std::vector<double> losses(const fs::path& run) const {
        std::istringstream rows(test::content_of(run / "metrics.csv"));
        std::string line;
        std::getline(rows, line);
        const auto fields = [](const std::string& row) {
            std::vector<std::string> result(1);
            for (const char c : row)
                if (c == ',')
                    result.emplace_back();
                else
                    result.back() += c;
            return result;
        };
        const std::vector<std::string> names = fields(line);
        const size_t column = size_t(std::find(names.begin(), names.end(), "loss") - names.begin());
        std::vector<double> values;
        while (std::getline(rows, line)) values.push_back(std::stod(fields(line).at(column)));
        return values;
    }

    /// Numbers of two result files; `names`: of the datasets.
    void expect_near_numbers(const fs::path& found, const fs::path& expected, const Names& names) const {
        const H5File a = H5File::open(found), b = H5File::open(expected);
        for (const std::string& name : names) {
            const std::vector<int64_t> shape = b.describe(name).shape;
            ASSERT_EQ(a.describe(name).shape, shape) << name;
            int64_t count = 1;
            for (const int64_t extent : shape) count *= extent;
            ASSERT_GT(count, 0) << name;
            std::vector<double> x(size_t(count), 0.0), y = x;
            a.read(name, StoredType::float64, x.data());
            b.read(name, StoredType::float64, y.data());
            for (size_t i = 0; i < x.size(); ++i)
                EXPECT_NEAR(x[i], y[i], 1e-3 * std::abs(y[i]) + 1e-6) << name << ' ' << i;
        }
    }

    /// Folders of a run with whole sequences on one rank, and of one in pieces on two ranks, which says `said`.
    std::pair<fs::path, fs::path> run_whole_and_in_pieces(const std::string& said) {
        job.name = "whole";
        expect_end(run(1), 0, {"finished in"});
        const auto whole = run_folder();
        job.sharding.context = 2;
        job.name = "pieces";
        expect_end(run(2), 0, {said, "finished in"});
        return {whole, run_folder()};
    }

    /// Scores of whole sequences on one rank, then of pieces on one group of two ranks and on two such groups, which
    /// was killed meanwhile.
    void expect_scores_in_pieces(const Names& names, const std::string& death, const Names& ignored = {}) {
        job.align.tokens = job.distill.tokens = job.finetune.tokens = job.evaluate.sequences = 0;
        const auto [whole, pieces] = run_whole_and_in_pieces("1 groups of 2 ranks");
        expect_near_numbers(pieces / "scores.h5", whole / "scores.h5", names);
        job.name = "two-groups";
        setenv("AMALGAM_FAULT", death.c_str(), 1);
        EXPECT_NE(run(4).status, 0);
        unsetenv("AMALGAM_FAULT");
        expect_end(run(4), 0, {"2 groups of 2 ranks", "finished in"});
        Names not_compared = test::times_and_places;
        not_compared.insert(not_compared.end(), ignored.begin(), ignored.end());
        EXPECT_EQ(differing_datasets(pieces / "scores.h5", result("scores.h5"), not_compared), Names{});
    }

    void expect_near(const std::vector<double>& found, const std::vector<double>& expected) const {
        ASSERT_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); ++i) EXPECT_NEAR(found[i] / expected[i], 1.0, 2e-4) << "row " << i;
    }
};

TEST_F(ContextPipeline, trains_and_evaluates_as_a_run_with_whole_sequences) {
    job.evaluate.recall.questions = 1;
    job.evaluate.recall.kinds = {"passages"};  // needs no wording
    job.evaluate.recall.lengths = {64, 75};
    const auto [whole, pieces] = run_whole_and_in_pieces("2 ranks share each sequence");
    ASSERT_EQ(losses(whole).size(), 6U * (1 + test::small_layers) + 6U + 3U);
    expect_near(losses(pieces), losses(whole));
    expect_near_numbers(pieces / "evaluation.h5", whole / "evaluation.h5",
                        {"/loss_by_position", "/kl_by_position", "/perplexity", "/kl_per_sequence",
                         "/recall/answer_loss_per_question"});

    // The bits depend on how many ranks share a sequence, and on nothing else.
    job.sharding.strategy = ShardingSetting::full;
    job.sharding.activations = Activations::recompute;
    job.name = "two-groups";
    expect_end(run(4), 0, {"align: sharding full over 4 ranks", "finished in"});
    for (const char* file :
         {"checkpoints/align.h5", "checkpoints/distill.h5", "checkpoints/finetune.h5", "evaluation.h5"})
        EXPECT_EQ(differing_datasets(pieces / file, run_folder() / file), Names{}) << file;

    // Killed, it goes on with other ranks.
    job.evaluate.sequences = job.evaluate.recall.questions = 0;
    job.checkpoint.every_steps = 2;
    job.checkpoint.background = BackgroundSaving::never;  // so that it is known which are there after the kill
    job.name = "stopped";
    job.sharding = {};
    job.sharding.context = 3;
    setenv("AMALGAM_FAULT", "distill.step:kill:step=3", 1);
    EXPECT_NE(run(3).status, 0);
    unsetenv("AMALGAM_FAULT");
    job.sharding.context = 2;
    job.sharding.strategy = ShardingSetting::optimizer;
    expect_end(
        run(4), 0,
        {"other bits than a run without this change has (deterministic: true):\n  sharding.context: was 3, now 2",
         "align: done before", "distill: goes on from step"});
    expect_near_weights(whole / "checkpoints/finetune.h5", result("checkpoints/finetune.h5"));
}

/// Documents packed by best fit in training, cut anywhere in what is held out.
TEST_F(ContextPipeline, keeps_documents_apart_as_a_run_with_whole_sequences) {
    const auto write = [&](const std::string& name, int64_t tokens, uint64_t seed) {
        fs::remove(folder / name);
        test::write_tokens(folder / name, test::simple_text(tokens, test::small_vocabulary, seed),
                           test::small_vocabulary, {}, "none", test::document_borders(tokens, 9, seed));
    };
    write("train.h5", 60 * test::small_length, 1);
    write("validation.h5", 12 * test::small_length, 2);
    job.data.documents = DocumentBorders::separate;
    job.data.packing = DocumentPacking::best_fit;
    test::set_steps(job.score, 4);
    job.select.rule = "kl_guided";
    const auto [whole, pieces] = run_whole_and_in_pieces("2 ranks share each sequence");
    expect_near(losses(pieces), losses(whole));
    expect_near_numbers(pieces / "evaluation.h5", whole / "evaluation.h5",
                        {"/loss_by_position", "/kl_by_position", "/perplexity"});
    expect_near_numbers(pieces / "scores.h5", whole / "scores.h5", {"/kl", "/train_loss", "/all_linear_kl"});
}

TEST_F(ContextPipeline, scores_candidates_that_are_distilled) {
    test::set_steps(job.score, 4);
    job.select.rule = "kl_guided";
    expect_scores_in_pieces({"/kl", "/train_loss", "/all_linear_kl"}, "score.candidate:kill:rank=2:step=3");
}

TEST_F(ContextPipeline, scores_candidates_as_they_are) {
    job.select.rule = "recall_guided";
    job.score.recall.kinds = {"passages"};
    job.score.recall.lengths = {64, 75};
    job.score.far_context = {.weight = 1.0, .window = 3, .gain = 1e-3};
    expect_scores_in_pieces({"/kl", "/samples/loss", "/samples/hidden_state_error", "/samples/recall_kl"},
                            "score.candidate:kill:rank=3:step=3");
}

TEST_F(ContextPipeline, trains_gates_for_scores) {
    job.select.rule = "joint_gates";
    job.select.options["budget"] = "2";
    job.score.gates.steps = 6;
    job.score.gates.learning_rate = 0.2;
    job.score.recall.kinds = {"passages"};
    job.score.recall.lengths = {64, 75};
    job.checkpoint.every_steps = 2;
    expect_scores_in_pieces({"/gates/value", "/gates/kl"}, "score.gates:kill:rank=1:step=3", {"/gates/seconds"});
}

TEST_F(ContextPipeline, ranks_that_cannot_share_are_refused) {
    job.sharding.context = 2;
    expect_end(run(3), 2, {"sharding.context is 2 but there are 3 ranks"});
    EXPECT_FALSE(fs::exists(run_folder()));
}

}  // namespace
}  // namespace amalgam
