// SPDX-License-Identifier: Apache-2.0
#include "selection/score_file.h"

#include <cmath>

#include "../storage/temporary_folder.h"
#include "storage/hdf5.h"

namespace amalgam {
namespace {

using test::expect_error;

CandidateResult candidate(int64_t number) {
    const double x = double(number);
    CandidateResult result;
    result.candidate = result.layer = number;
    result.measured_tokens = {0, 512, 1024};
    result.kl = {{3.0, 2.0, 4.0, 5.0}, {1.0, 1.5, 2.0, 2.5}, {0.1 + x, 0.2 + x, 0.3 + x, 0.4 + x}};
    result.train_loss = {2.0, 1.0};
    result.seconds = 1.5;
    result.rank = number % 2;
    return result;
}

void expect_same(const CandidateResult& found, const CandidateResult& expected) {
    EXPECT_EQ(found.candidate, expected.candidate);
    EXPECT_EQ(found.layer, expected.layer);
    EXPECT_EQ(found.measured_tokens, expected.measured_tokens);
    EXPECT_EQ(found.kl, expected.kl);
    EXPECT_EQ(found.train_loss, expected.train_loss);
    EXPECT_EQ(found.seconds, expected.seconds);
    EXPECT_EQ(found.rank, expected.rank);
    EXPECT_EQ(found.score(), expected.score());
}

class ScoreFile : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "scores.h5";
    ScoreTable table() const {
        ScoreTable t;
        t.layers = 3;
        t.candidates = {candidate(0), candidate(1), candidate(2)};
        t.all_linear_kl = {5.0, 6.0, 7.0, 8.0};
        return t;
    }
};

TEST_F(ScoreFile, a_candidates_file_gives_it_back) {
    write_candidate(folder / "candidate-002.h5", candidate(2), Provenance{});
    expect_same(read_candidate(folder / "candidate-002.h5"), candidate(2));
}

TEST_F(ScoreFile, a_candidates_file_keeps_its_rows_of_metrics) {
    CandidateResult result = candidate(2);
    StepMetrics row;
    row.step = 3;
    row.tokens = 96;
    row.losses = {0.1};
    row.gradient_norm = 0.2;
    row.learning_rate = 0.3;
    row.tokens_per_second = 0.4;
    row.memory_gib = 0.5;
    row.skipped_updates = 6;
    result.logged = {StepMetrics(row), row};
    result.logged[0].step = 2;
    write_candidate(folder / "candidate-002.h5", result, Provenance{});
    const auto rows = read_candidate(folder / "candidate-002.h5").logged;
    ASSERT_EQ(rows.size(), 2U);
    EXPECT_EQ(rows[0].step, 2);
    EXPECT_EQ(rows[1].step, 3);
    EXPECT_EQ(rows[1].stage, "score");
    EXPECT_EQ(rows[1].candidate, 2);
    EXPECT_EQ(rows[1].tokens, 96);
    EXPECT_EQ(rows[1].losses, std::vector<double>{0.1});
    EXPECT_EQ(rows[1].gradient_norm, 0.2);
    EXPECT_EQ(rows[1].learning_rate, 0.3);
    EXPECT_EQ(rows[1].tokens_per_second, 0.4);
    EXPECT_EQ(rows[1].memory_gib, 0.5);
    EXPECT_EQ(rows[1].skipped_updates, 6);
}

TEST_F(ScoreFile, the_score_is_minus_the_mean_of_the_last_measurement) {
    EXPECT_DOUBLE_EQ(candidate(2).score(), -2.25);
    EXPECT_EQ(table().scores_by_layer(), (std::vector<double>{-0.25, -1.25, -2.25}));
}

TEST_F(ScoreFile, a_table_without_selection) {
    write_scores(path, table(), Provenance{});
    const ScoreTable found = read_scores(path);
    EXPECT_EQ(found.layers, 3);
    EXPECT_EQ(found.all_linear_kl, table().all_linear_kl);
    EXPECT_FALSE(found.selection.has_value());
    ASSERT_EQ(found.candidates.size(), 3U);
    for (int64_t c = 0; c < 3; ++c) expect_same(found.candidates[size_t(c)], candidate(c));
}

TEST_F(ScoreFile, a_selection_with_and_without_scores) {
    for (const bool scored : {true, false}) {
        ScoreTable t = scored ? table() : ScoreTable{};
        t.layers = 3;
        t.selection = Selection{"explicit", {0, 2}, {2, 0}, 9};
        write_scores(path, t, Provenance{});
        const ScoreTable found = read_scores(path);
        ASSERT_TRUE(found.selection.has_value());
        EXPECT_EQ(found.selection->rule, "explicit");
        EXPECT_EQ(found.selection->layers, (std::vector<int64_t>{0, 2}));
        EXPECT_EQ(found.selection->order, (std::vector<int64_t>{2, 0}));
        EXPECT_EQ(found.selection->seed, 9);
        EXPECT_EQ(found.candidates.size(), scored ? 3U : 0U);
    }
}

TEST_F(ScoreFile, a_selection_of_nothing_is_a_selection) {
    ScoreTable t;
    t.layers = 3;
    t.selection = Selection{"all_linear", {}, {}, 0};
    write_scores(path, t, Provenance{});
    ASSERT_TRUE(read_scores(path).selection.has_value());
    EXPECT_TRUE(read_scores(path).selection->layers.empty());
}

TEST_F(ScoreFile, statistics_stand_next_to_the_values) {
    write_scores(path, table(), Provenance{});
    const H5File file = H5File::open(path);
    EXPECT_EQ(file.describe("/kl").shape, (std::vector<int64_t>{3, 3, 4}));
    const auto mean = file.read_doubles("/kl_mean"), error = file.read_doubles("/kl_standard_error");
    EXPECT_DOUBLE_EQ(mean[4], 1.75);
    EXPECT_NEAR(error[4], std::sqrt((0.75 * 0.75 + 0.25 * 0.25) * 2.0 / 3.0 / 4.0), 1e-12);
    EXPECT_EQ(file.read_integers("/checkpoint_tokens"), (std::vector<int64_t>{0, 512, 1024}));
    EXPECT_EQ(file.string_attribute("/kl", "unit"), "nat/token");
}

TEST_F(ScoreFile, layers_that_were_not_scored_are_named) {
    ScoreTable t = table();
    t.candidates.pop_back();
    expect_error([&] { t.scores_by_layer(); }, ExitCode::damaged_file, {"layer 2"});
}

TEST_F(ScoreFile, damaged_files_are_named) {
    write_scores(path, table(), Provenance{});
    expect_error([&] { read_candidate(path); }, ExitCode::damaged_file, {path.string(), "amalgam candidate"});
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string()});
}

}  // namespace
}  // namespace amalgam
