// SPDX-License-Identifier: Apache-2.0
#include "../checkpoints/whole_checkpoint.h"
#include "../selection/made_up_scores.h"
#include "../stages/small_run.h"
#include "evaluation/evaluation_file.h"
#include "selection/selection.h"

namespace amalgam {
namespace {

using test::expect_end;

class Inspect : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "file.h5";
    test::Finished inspect() const { return test::Process({AMALGAM_PROGRAM, "inspect", path.string()}).wait(30.0); }
};

/// Candidate c restores another layer than c: their KL are 1, 2 and 3.
TEST_F(Inspect, scores) {
    write_scores(path, test::made_up_scores(3, {2, 0, 1}), Provenance{});
    const auto finished = inspect();
    expect_end(finished, 0, {"amalgam scores", "/kl_standard_error", "[3, 3, 4]", "/layout"});
    EXPECT_NE(finished.output.find("layers by importance (held-out KL to the teacher, nat/token, after restoring "
                                   "softmax there)\n"
                                   "  layer   2  1.00000 +- 0.22822\n"
                                   "  layer   0  2.00000 +- 0.22822\n"
                                   "  layer   1  3.00000 +- 0.22822\n"),
              std::string::npos)
        << finished.output;
    EXPECT_EQ(finished.output.find("selection"), std::string::npos) << finished.output;
}

TEST_F(Inspect, scores_of_other_candidates_than_restored_layers) {
    ScoreTable table = test::made_up_scores(3, {2, 0, 1});
    table.candidates[1].candidate = {keep_softmax(3, "gated_delta_net", {0, 2}), {{"learning_rate", 0.001}}};
    write_scores(path, table, Provenance{});
    expect_end(inspect(), 0,
               {"candidates by importance", "  layer   2  1.00000", "without layer   1, learning_rate 0.001  2.00000"});
}

/// The layer without which the KL is largest is the most important one.
TEST_F(Inspect, scores_of_removed_layers) {
    ScoreTable table = test::made_up_scores(3, {0, 1, 2});
    for (CandidateResult& one : table.candidates)
        for (std::string& mixer : one.candidate.layout)
            mixer = mixer == softmax_mixer ? "gated_delta_net" : softmax_mixer;
    write_scores(path, table, Provenance{});
    const auto finished = inspect();
    expect_end(finished, 0, {"layers by importance", "without softmax there"});
    EXPECT_NE(finished.output.find("  without layer   2  3.00000 +- 0.22822\n"
                                   "  without layer   1  2.00000 +- 0.22822\n"
                                   "  without layer   0  1.00000 +- 0.22822\n"),
              std::string::npos)
        << finished.output;
}

TEST_F(Inspect, scores_of_version_1) {
    test::write_scores_of_version_1(path, test::made_up_scores(3, {2, 0, 1}), 3, std::vector<int64_t>{2, 0});
    const auto finished = inspect();
    expect_end(finished, 0, {"layers by importance", "selection (kl_guided): 0 2"});
    EXPECT_LT(finished.output.find("layer   2  1.00000"), finished.output.find("layer   1  3.00000"));
}

TEST_F(Inspect, selection) {
    write_selection(path, {"random", "budget: 2, seed: 7", {2, 0}, keep_softmax(3, "gated_delta_net", {0, 2})},
                    Provenance{});
    expect_end(inspect(), 0,
               {"amalgam selection", "rule              random", "options           budget: 2, seed: 7",
                "selection (random): 0 2\n"});
}

TEST_F(Inspect, checkpoint) {
    const auto model = test::small_model({test::small_config(), all_linear(3, test::linear_mixer), {}}, 1, true);
    test::write_checkpoint(path, *model, nullptr, {"align", 7, 100, 42, 5});
    expect_end(inspect(), 0,
               {"amalgam checkpoint", "gated_delta_net x 3", "data_cursor       42",
                "/model/model.layers.0.linear_attn.A_log", "float32"});
}

TEST_F(Inspect, evaluation) {
    HeldOutSet set{at::zeros({1, 3}, at::kLong), {{1}}};
    write_evaluation(path, {{"student", {{1, 1, 0}, {1, 0, 0}, {0.5, 0.5, 0.5}}}}, set, 1, {"softmax"}, Provenance{});
    expect_end(inspect(), 0, {"amalgam evaluation", "student", "perplexity 2.7183", "0.5000 nat/token", "100.0000 %"});
    EXPECT_EQ(inspect().output.find("  recall"), std::string::npos);
}

TEST_F(Inspect, recall) {
    HeldOutSet set{at::zeros({1, 3}, at::kLong), {{}}};
    const TokenMeasurements tokens{{1, 1, 0}, {1, 0, 0}, {0.5, 0.5, 0.5}};
    const RecallJob asked{.questions = 1, .kinds = {"text"}, .lengths = {64, 128}, .depths = {0, 100}};
    const RecallAnswers all{asked, {1, 1, 1, 1}, {0, 0, 0, 0}, {1, 2, 3, 4}},
        some{asked, {1, 0, 0, 0}, {0, 1, 1, 1}, {1, 2, 3, 4}};
    write_evaluation(path, {{"teacher", tokens, std::nullopt, all}, {"student", tokens, std::nullopt, some}}, set, 1,
                     {"softmax"}, Provenance{});
    expect_end(inspect(), 0, {"recall 1.0000", "recall 0.2500", "/recall/accuracy"});
}

TEST_F(Inspect, what_is_not_there_or_damaged) {
    expect_end(inspect(), int(ExitCode::bad_input), {path.string()});
    test::put(path, "not HDF5 at all");
    expect_end(inspect(), int(ExitCode::damaged_file), {path.string()});
}

}  // namespace
}  // namespace amalgam
