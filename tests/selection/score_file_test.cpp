// SPDX-License-Identifier: Apache-2.0
#include "selection/score_file.h"

#include <cmath>

#include "../storage/temporary_folder.h"
#include "made_up_scores.h"

namespace amalgam {
namespace {

using test::expect_error;
using test::made_up_scores;

const CandidateResult third = made_up_scores(3, {0, 1, 2}).candidates[2];

void expect_same(const CandidateResult& found, const CandidateResult& expected) {
    EXPECT_EQ(found.number, expected.number);
    EXPECT_EQ(found.candidate, expected.candidate);
    EXPECT_EQ(found.measured_tokens, expected.measured_tokens);
    EXPECT_EQ(found.kl, expected.kl);
    EXPECT_EQ(found.train_loss, expected.train_loss);
    EXPECT_EQ(found.seconds, expected.seconds);
    EXPECT_EQ(found.rank, expected.rank);
    EXPECT_EQ(found.samples, expected.samples);
    EXPECT_EQ(found.recall_weight, expected.recall_weight);
    EXPECT_EQ(found.far_weight, expected.far_weight);
    EXPECT_EQ(found.measured_share, expected.measured_share);
    EXPECT_EQ(found.score(), expected.score());
}

void expect_same(const ScoreTable& found, const ScoreTable& expected) {
    EXPECT_EQ(found.all_linear_kl, expected.all_linear_kl);
    ASSERT_EQ(found.candidates.size(), expected.candidates.size());
    for (size_t c = 0; c < expected.candidates.size(); ++c) expect_same(found.candidates[c], expected.candidates[c]);
}

class ScoreFile : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "scores.h5", one = folder / "candidate-002.h5";
};

TEST_F(ScoreFile, a_candidates_file_gives_it_back) {
    write_candidate(one, third, Provenance{});
    expect_same(read_candidate(one, third.candidate), third);
    expect_same(read_candidate(one, {}), third);
}

TEST_F(ScoreFile, a_candidates_file_of_version_1_is_read) {
    test::write_candidate_of_version_1(one, third);
    EXPECT_FALSE(H5File::open(one).has("/layout"));
    expect_same(read_candidate(one, third.candidate), third);
    const Candidate other = {keep_softmax(3, "gated_delta_net", {1}), {}};
    EXPECT_NE(read_candidate(one, other).candidate, other) << "it restores layer 2";
}

TEST_F(ScoreFile, a_candidates_file_keeps_its_rows_of_metrics) {
    CandidateResult result = third;
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
    write_candidate(one, result, Provenance{});
    const auto rows = read_candidate(one, third.candidate).logged;
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
    EXPECT_DOUBLE_EQ(third.score(), -3.0);
    EXPECT_EQ(test::scores_of(made_up_scores(3, {0, 1, 2})), (std::vector<double>{-1.0, -2.0, -3.0}));
}

/// Three candidates that were not trained: a KL of 1, 2, 3 of the text and of 0.5, 0.25, 0 of two answers.
ScoreTable measured_directly() {
    ScoreTable table = made_up_scores(3, {0, 1, 2});
    for (CandidateResult& result : table.candidates) {
        const auto number = double(result.number);
        result.candidate.layout = all_softmax(3);
        result.candidate.layout[size_t(result.number)] = "gated_delta_net";
        result.measured_tokens = {0};
        result.kl = {{number + 0.5, number + 1.5}};
        result.train_loss.clear();
        result.samples = {{"loss", {3.0, 4.0}}, {"recall_kl", {0.75 - number / 4.0, 0.25 - number / 4.0}}};
        result.recall_weight = 4.0;
        result.measured_share = 1.0 - number / 8.0;
    }
    table.all_linear_kl = {7.0, 8.0};
    return table;
}

TEST_F(ScoreFile, candidates_that_were_not_trained) {
    const ScoreTable table = measured_directly();
    write_scores(path, table, Provenance{});
    expect_same(read_scores(path), table);
    write_candidate(one, table.candidates[2], Provenance{});
    expect_same(read_candidate(one, table.candidates[2].candidate), table.candidates[2]);
}

TEST_F(ScoreFile, the_score_weighs_what_is_recalled) {
    const ScoreTable table = measured_directly();
    EXPECT_EQ(test::scores_of(table), (std::vector<double>{-1.0 - 4.0 * 0.5, -2.0 - 4.0 * 0.25, -3.0}));
    EXPECT_DOUBLE_EQ(table.candidates[0].score_error(), std::hypot(0.5, 4.0 * 0.25));
    const auto measured = table.scored()[1].measured;
    EXPECT_EQ(measured.at("kl"), 2.0);
    EXPECT_EQ(measured.at("loss"), 3.5);
    EXPECT_EQ(measured.at("recall_kl"), 0.25);
}

/// Text and far context are of the same sequences: where one is hard the other is, and errors do not add up as those of
/// independent samples do.
TEST_F(ScoreFile, the_score_weighs_far_context) {
    ScoreTable table = measured_directly();
    for (CandidateResult& result : table.candidates) {
        result.samples["far_kl"] = {3.0, 1.0};  // the KL is larger in the second sequence
        result.far_weight = 0.25;
    }
    EXPECT_EQ(test::scores_of(table),
              (std::vector<double>{-1.0 - 4.0 * 0.5 - 0.5, -2.0 - 4.0 * 0.25 - 0.5, -3.0 - 0.5}));
    const double of_text = 0.5 * ((1.5 + 0.25) - (0.5 + 0.75));
    EXPECT_DOUBLE_EQ(table.candidates[0].score_error(), std::hypot(of_text, 4.0 * 0.25));
    EXPECT_EQ(table.scored()[1].measured.at("far_kl"), 2.0);
    write_scores(path, table, Provenance{});
    expect_same(read_scores(path), table);
    write_candidate(one, table.candidates[2], Provenance{});
    expect_same(read_candidate(one, table.candidates[2].candidate), table.candidates[2]);
    write_scores(path, measured_directly(), Provenance{});
    EXPECT_FALSE(H5File::open(path).has("/far_weight"));
}

TEST_F(ScoreFile, a_table_of_restored_layers) {
    const ScoreTable table = made_up_scores(3, {0, 1, 2});
    write_scores(path, table, Provenance{});
    expect_same(read_scores(path), table);
    const H5File file = H5File::open(path);
    EXPECT_EQ(file.read_strings("/mixer"), (std::vector<std::string>{"gated_delta_net", "softmax"}));
    EXPECT_EQ(file.describe("/layout").shape, (std::vector<int64_t>{3, 3}));
    EXPECT_EQ(file.read_integers("/layout"), (std::vector<int64_t>{1, 0, 0, 0, 1, 0, 0, 0, 1}));
    EXPECT_EQ(file.read_integers("/layer"), (std::vector<int64_t>{0, 1, 2}));
    EXPECT_FALSE(file.has("/numbers"));
}

/// A candidate's number says nothing about its layer.
TEST_F(ScoreFile, candidates_in_another_order_than_their_layers) {
    const ScoreTable table = made_up_scores(3, {2, 0, 1});
    write_scores(path, table, Provenance{});
    expect_same(read_scores(path), table);
    EXPECT_EQ(restored_layer(read_scores(path).candidates[0].candidate), 2);
}

TEST_F(ScoreFile, layouts_of_any_kind_and_numbers_beside_them) {
    ScoreTable table = made_up_scores(3, {0, 1, 2});
    table.candidates[0].candidate.layout = {"softmax", "gated_linear_attention", "softmax"};
    table.candidates[1].candidate.numbers = {{"learning_rate", 0.001}};
    table.candidates[2].candidate.numbers = {{"learning_rate", 0.002}, {"temperature", 2.0}};
    write_scores(path, table, Provenance{});
    expect_same(read_scores(path), table);
    EXPECT_FALSE(H5File::open(path).has("/layer")) << "candidate 0 has no layer";
}

TEST_F(ScoreFile, a_table_of_version_1_is_read) {
    const ScoreTable table = made_up_scores(3, {2, 0, 1}, "gated_linear_attention");
    test::write_scores_of_version_1(path, table, 3, std::vector<int64_t>{2});
    EXPECT_FALSE(H5File::open(path).has("/layout"));
    expect_same(read_scores(path, "gated_linear_attention"), table);
    EXPECT_EQ(read_scores(path).candidates[0].candidate.layout, keep_softmax(3, "linear", {2}));
}

TEST_F(ScoreFile, of_an_unknown_version_is_refused) {
    write_h5_once(path, [](H5File& file) { file.describe_file("amalgam scores", Provenance{}, 3); });
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "format version is 3.0"});
}

TEST_F(ScoreFile, layers_and_mixers_that_are_not_there_are_named) {
    ScoreTable table = made_up_scores(3, {2, 0, 1});
    test::write_scores_of_version_1(path, table, 2, std::nullopt);
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "layer 2 of 2"});
    write_scores(path, table, Provenance{});
    {
        H5File file = H5File::update(path);
        file.set_attribute("/layout", "crc32", int64_t{0});
    }
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "/layout", "checksum"});
    write_h5_once(path, [&](H5File& file) {
        file.describe_file("amalgam scores", Provenance{}, 2);
        test::write_candidates_of_version_1(file, table.candidates);
        file.write("/mixer", {"softmax"});
        const std::vector<int32_t> layout = {0, 1, 0, 0, 0, 0, 0, 0, 0};
        file.write("/layout", std::vector<int64_t>{3, 3}, std::span<const int32_t>(layout));
    });
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "mixer 1", "/mixer has 1"});
}

TEST_F(ScoreFile, statistics_stand_next_to_the_values) {
    write_scores(path, made_up_scores(3, {0, 1, 2}), Provenance{});
    const H5File file = H5File::open(path);
    EXPECT_EQ(file.describe("/kl").shape, (std::vector<int64_t>{3, 3, 4}));
    const auto mean = file.read_doubles("/kl_mean"), error = file.read_doubles("/kl_standard_error");
    EXPECT_DOUBLE_EQ(mean[4], 1.75);
    EXPECT_NEAR(error[4], std::sqrt((0.75 * 0.75 + 0.25 * 0.25) * 2.0 / 3.0 / 4.0), 1e-12);
    EXPECT_EQ(file.read_integers("/checkpoint_tokens"), (std::vector<int64_t>{0, 512, 1024}));
    EXPECT_EQ(file.string_attribute("/kl", "unit"), "nat/token");
}

TEST_F(ScoreFile, datasets_that_do_not_fit_together_are_named) {
    const ScoreTable table = made_up_scores(3, {2, 0, 1});
    const auto write = [&](const std::vector<int64_t>& shape) {
        write_h5_once(path, [&](H5File& file) {
            file.describe_file("amalgam scores", Provenance{});
            file.set_attribute("/", "number_of_layers", int64_t{3});
            test::write_integers(file, "/candidate", {0, 1, 2});
            test::write_integers(file, "/layer", {2, 0, 1});
            test::write_integers(file, "/rank", {0, 1});  // one is missing
            test::write_integers(file, "/checkpoint_tokens", {0, 512});
            const std::vector<double> values(24, 1.0);
            file.write("/kl", shape, std::span<const double>(values));
            const std::vector<int64_t> losses = {3, 8}, seconds = {3};
            file.write("/train_loss", losses, std::span<const double>(values));
            file.write("/seconds", seconds, std::span<const double>(values.data(), 3));
        });
    };
    write({3, 2, 4});
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "/rank", "does not fit"});
    write({2, 3, 4});
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "/train_loss", "does not fit"});
    write({6, 4});
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string(), "/kl", "does not fit"});
}

TEST_F(ScoreFile, damaged_files_are_named) {
    write_scores(path, made_up_scores(3, {0, 1, 2}), Provenance{});
    expect_error([&] { read_candidate(path, third.candidate); }, ExitCode::damaged_file,
                 {path.string(), "amalgam candidate"});
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {path.string()});
}

TEST_F(ScoreFile, a_score_of_zero_has_no_sign) {
    CandidateResult same = third;
    for (double& kl : same.kl.back()) kl = 0.0;
    EXPECT_EQ(same.score(), 0.0);
    EXPECT_FALSE(std::signbit(same.score()));
}

TEST_F(ScoreFile, has_the_course_of_gates) {
    ScoreTable table = made_up_scores(3, {0, 1, 2});
    write_scores(path, table, Provenance{});
    EXPECT_FALSE(read_scores(path).gates.has_value());
    table.gates = GateCourse{{{1.0, 1.0, 1.0}, {0.5, 0.25, 0.75}}, {0.125}, {2.0}, {3.0}, {}, 0.5, 4096, 1.5};
    write_scores(path, table, Provenance{});
    const auto found = read_scores(path).gates;
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ(found->gates, table.gates->gates);
    EXPECT_EQ(found->kl, table.gates->kl);
    EXPECT_EQ(found->recall_kl, table.gates->recall_kl);
    EXPECT_EQ(found->far_kl, table.gates->far_kl);
    EXPECT_EQ(found->penalty, 0.5);
    EXPECT_EQ(found->tokens, 4096);
    EXPECT_EQ(found->seconds, 1.5);
    table.gates->kl = {0.1, 0.2};  // of a step more than there are gates of
    write_scores(path, table, Provenance{});
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {"/gates/kl"});
    table.gates = GateCourse{{{1.0, 1.0, 1.0}, {0.5, 0.25, 0.75}}, {}, {}, {}, {4.0}, 0.5, 4096, 1.5};
    write_scores(path, table, Provenance{});
    EXPECT_TRUE(read_scores(path).gates->kl.empty());
    EXPECT_EQ(read_scores(path).gates->state_error, table.gates->state_error);
    table.gates->state_error = {};  // of nothing that they were trained on
    write_scores(path, table, Provenance{});
    expect_error([&] { read_scores(path); }, ExitCode::damaged_file, {"/gates/kl"});
}

}  // namespace
}  // namespace amalgam
