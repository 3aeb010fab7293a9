// SPDX-License-Identifier: Apache-2.0
#include "evaluation/evaluation_file.h"

#include <cmath>
#include <limits>

#include "../storage/temporary_folder.h"
#include "evaluation/kept_answers.h"
#include "storage/hdf5.h"

namespace amalgam {
namespace {

/// Two sequences of five tokens; the last position predicts nothing.
class EvaluationFile : public test::TemporaryFolder {
  protected:
    EvaluationFile() {
        set.tokens = at::zeros({2, 5}, at::kLong);
        set.answers = {{2, 4}, {1}};
        student.name = "student";
        student.tokens.loss = {1, 2, 3, 4, 0, 5, 6, 7, 8, 0};
        student.tokens.correct = {0, 1, 0, 0, 0, 1, 0, 0, 0, 0};
        student.tokens.kl = {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0};
        teacher.name = "teacher";
        teacher.tokens.loss = {1, 1, 1, 1, 0, 1, 1, 1, 1, 0};
        teacher.tokens.correct = {1, 1, 1, 1, 0, 1, 1, 1, 1, 0};
    }
    HeldOutSet set;
    EvaluatedModel student, teacher;
};

TEST_F(EvaluationFile, summary) {
    const auto s = summarise(student, set);
    EXPECT_DOUBLE_EQ(s.loss, 4.5);  // sequences: 2.5 and 6.5
    EXPECT_DOUBLE_EQ(s.loss_error, 2.0);
    EXPECT_DOUBLE_EQ(s.perplexity, std::exp(4.5));
    EXPECT_DOUBLE_EQ(s.kl, 0.55);  // 0.3 and 0.8
    EXPECT_DOUBLE_EQ(s.kl_error, 0.25);
    EXPECT_EQ(s.answer_count, 3);
    EXPECT_DOUBLE_EQ(s.answer_accuracy, 2.0 / 3.0);  // tokens 2 and 4 are predicted at 1 and 3, token 1 at 0
    const auto t = summarise(teacher, set);
    EXPECT_EQ(t.kl, 0.0);
    EXPECT_DOUBLE_EQ(t.answer_accuracy, 1.0);
}

TEST_F(EvaluationFile, file) {
    const auto path = folder / "evaluation.h5";
    write_evaluation(path, {teacher, student}, set, 2, {"softmax", "gated_delta_net"}, Provenance{});
    const H5File file = H5File::open(path);
    file.expect_filetype("amalgam evaluation");
    EXPECT_EQ(file.string_attribute("/", "layout"), "softmax,gated_delta_net");
    EXPECT_EQ(file.read_strings("/model"), (std::vector<std::string>{"teacher", "student"}));
    EXPECT_EQ(file.read_integers("/position_edges"), (std::vector<int64_t>{0, 2, 4}));
    EXPECT_EQ(file.read_doubles("/loss_by_position"), (std::vector<double>{1.0, 1.0, 3.5, 5.5}));
    EXPECT_EQ(file.read_doubles("/perplexity_by_position")[2], std::exp(3.5));
    EXPECT_NEAR(file.read_doubles("/kl_by_position")[2], 0.4, 1e-12);
    EXPECT_EQ(file.read_doubles("/loss_per_sequence"), (std::vector<double>{1.0, 1.0, 2.5, 6.5}));
    EXPECT_EQ(file.read_doubles("/loss"), (std::vector<double>{1.0, 4.5}));
    EXPECT_EQ(file.read_doubles("/perplexity")[1], std::exp(4.5));
    EXPECT_EQ(file.read_doubles("/kl")[0], 0.0);
    EXPECT_EQ(file.read_doubles("/loss_standard_error")[1], 2.0);
    EXPECT_EQ(file.read_doubles("/answer_accuracy")[0], 1.0);
    EXPECT_EQ(file.read_integers("/answer_count"), (std::vector<int64_t>{3}));
}

/// What stands at the end of a document does not predict the next one.
TEST_F(EvaluationFile, of_documents_that_are_kept_apart) {
    set.borders = {{2}, {}};
    const auto s = summarise(student, set);
    EXPECT_DOUBLE_EQ(s.loss, (8.0 + 26.0) / 7.0) << "the mean over tokens, not that of the sequences' means";
    const double residual = 8.0 - 3.0 * s.loss;  // of the other sequence: the same, negative
    EXPECT_DOUBLE_EQ(s.loss_error, std::sqrt(2.0 * residual * residual * 2.0) / 7.0);
    EXPECT_DOUBLE_EQ(s.kl, 0.55);
    const auto path = folder / "evaluation.h5";
    write_evaluation(path, {student}, set, 2, {"softmax"}, Provenance{});
    EXPECT_EQ(H5File::open(path).read_doubles("/loss_by_position"), (std::vector<double>{4.0, 5.5}));
    EXPECT_EQ(H5File::open(path).read_doubles("/loss"), std::vector<double>{s.loss});
    set.borders = {{2}, {2}};
    std::filesystem::remove(path);
    write_evaluation(path, {student}, set, 4, {"softmax"}, Provenance{});
    const auto bins = H5File::open(path).read_doubles("/loss_by_position");
    EXPECT_EQ(bins[0], 3.0);
    EXPECT_TRUE(std::isnan(bins[1])) << "a range in which nothing is predicted";
    EXPECT_EQ(bins[2], 5.0);
    EXPECT_NO_THROW(look_through_evaluation(path));
}

TEST_F(EvaluationFile, a_sequence_of_documents_of_one_token_has_no_loss) {
    set.borders = {{1, 2, 3, 4}, {}};
    const auto s = summarise(student, set);
    EXPECT_DOUBLE_EQ(s.loss, 6.5);
    EXPECT_DOUBLE_EQ(s.kl, 0.55);
    const auto path = folder / "evaluation.h5";
    write_evaluation(path, {student}, set, 2, {"softmax"}, Provenance{});
    const auto per_sequence = H5File::open(path).read_doubles("/loss_per_sequence");
    EXPECT_TRUE(std::isnan(per_sequence[0]));
    EXPECT_EQ(per_sequence[1], 6.5);
    EXPECT_NO_THROW(look_through_evaluation(path));
}

TEST_F(EvaluationFile, answers_to_requests) {
    const auto path = folder / "evaluation.h5";
    const double none = std::numeric_limits<double>::quiet_NaN();
    teacher.answers = {"fingerprint", {-1.5, none, none}, {1, 0, 0}, {{}, {7, 8, 2}, {9}}};
    student.answers = {"fingerprint", {-2.5, none, none}, {0, 0, 0}, {{}, {}, {5}}};
    write_evaluation(path, {teacher, student}, set, 2, {"softmax"}, Provenance{});
    const H5File file = H5File::open(path);
    EXPECT_EQ(file.string_attribute("/requests", "fingerprint"), "fingerprint");
    EXPECT_EQ(file.read_doubles("/requests/student/loglikelihood")[0], -2.5);
    EXPECT_TRUE(std::isnan(file.read_doubles("/requests/teacher/loglikelihood")[1]));
    EXPECT_EQ(file.read_integers("/requests/teacher/greedy"), (std::vector<int64_t>{1, 0, 0}));
    EXPECT_EQ(file.read_integers("/requests/teacher/generated"), (std::vector<int64_t>{7, 8, 2, 9}));
    EXPECT_EQ(file.read_integers("/requests/teacher/generated_offsets"), (std::vector<int64_t>{0, 0, 3, 4}));
    EXPECT_EQ(file.read_integers("/requests/student/generated_offsets"), (std::vector<int64_t>{0, 0, 0, 1}));
}

TEST_F(EvaluationFile, answers_of_one_model_become_kept_answers) {
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const AnswerPlace place{world.broadcast((folder / "answers").string()), "teacher"};
    const double none = std::numeric_limits<double>::quiet_NaN();
    teacher.answers = {"fingerprint", {-1.5, none, none}, {1, 0, 0}, {{}, {7, 8, 2}, {9}}};
    student.answers = {"fingerprint", {-2.5, none, none}, {0, 0, 0}, {{}, {}, {5}}};
    world.on_root([&] {
        const auto asked = folder / "evaluation.h5", not_asked = folder / "without_requests.h5";
        write_evaluation(asked, {teacher, student}, set, 2, {"softmax"}, Provenance{});
        EXPECT_EQ(keep_evaluated_answers(asked, place), 3);
        write_evaluation(not_asked, {EvaluatedModel{"teacher", teacher.tokens, {}, {}}}, set, 2, {"softmax"},
                         Provenance{});
        EXPECT_EQ(keep_evaluated_answers(not_asked, place), 0);
    });
    const KeptAnswers kept(place, "fingerprint", world);
    ASSERT_EQ(kept.found().size(), 3U);
    EXPECT_EQ(kept.found().at(0).loglikelihood, -1.5);
    EXPECT_EQ(kept.found().at(0).greedy, 1);
    EXPECT_TRUE(std::isnan(kept.found().at(1).loglikelihood));
    EXPECT_EQ(kept.found().at(1).generated, (std::vector<int32_t>{7, 8, 2}));
    EXPECT_EQ(kept.found().at(2).generated, (std::vector<int32_t>{9}));
}

TEST_F(EvaluationFile, recall_by_kind_length_and_depth) {
    const auto path = folder / "evaluation.h5";
    const RecallJob asked{
        .questions = 2, .kinds = {"text", "pairs"}, .lengths = {64, 128, 256}, .depths = {50}, .seed = 7};
    teacher.recall = {asked, std::vector<double>(12, 1.0), std::vector<double>(12, 0.5), std::vector<double>(12, 9.0)};
    student.recall = teacher.recall;
    student.recall->right[3] = 0.0;  // text, 128 tokens, the second question
    student.recall->loss[3] = 2.5;
    student.recall->checksum[3] = teacher.recall->checksum[3] = 4294967295.0;
    write_evaluation(path, {teacher, student}, set, 2, {"softmax"}, Provenance{});
    const H5File file = H5File::open(path);
    EXPECT_EQ(file.read_strings("/recall/kind"), (std::vector<std::string>{"text", "pairs"}));
    EXPECT_EQ(file.read_integers("/recall/length"), (std::vector<int64_t>{64, 128, 256}));
    EXPECT_EQ(file.read_integers("/recall/depth"), (std::vector<int64_t>{50}));
    EXPECT_EQ(file.describe("/recall/right").shape, (std::vector<int64_t>{2, 2, 3, 1, 2}));
    EXPECT_EQ(file.read_integers("/recall/right")[12 + 3], 0);
    EXPECT_EQ(file.read_integers("/recall/right")[12 + 2], 1);
    EXPECT_EQ(file.describe("/recall/accuracy").shape, (std::vector<int64_t>{2, 2, 3, 1}));
    EXPECT_EQ(file.read_doubles("/recall/accuracy")[6 + 1], 0.5);
    EXPECT_EQ(file.read_doubles("/recall/accuracy")[1], 1.0);
    EXPECT_EQ(file.read_doubles("/recall/accuracy_standard_error")[6 + 1], 0.5);
    EXPECT_EQ(file.read_doubles("/recall/answer_loss")[6 + 1], 1.5);
    EXPECT_EQ(file.read_doubles("/recall/answer_loss_standard_error")[6 + 1], 1.0);
    EXPECT_EQ(file.read_doubles("/recall/answer_loss_per_question")[12 + 3], 2.5);
    EXPECT_EQ(file.describe("/recall/checksum").shape, (std::vector<int64_t>{2, 3, 1, 2}));
    EXPECT_EQ(file.read_integers("/recall/checksum")[3], 4294967295);
    EXPECT_EQ(file.integer_attribute("/recall", "seed"), 7);
}

TEST_F(EvaluationFile, no_questions_no_recall) {
    write_evaluation(folder / "evaluation.h5", {student}, set, 2, {"softmax"}, Provenance{});
    EXPECT_FALSE(H5File::open(folder / "evaluation.h5").has("/recall"));
}

/// What is not finite has not been evaluated: model and number are named, and there is no file.
TEST_F(EvaluationFile, of_a_model_that_diverged_is_not_written) {
    const auto path = folder / "evaluation.h5";
    const auto refused = [&](const std::function<void(EvaluatedModel&)>& change, const std::string& what) {
        EvaluatedModel bad = student;
        change(bad);
        test::expect_error(
            [&] {
                write_evaluation(path, {teacher, bad}, set, 2, {"softmax"}, Provenance{});
            },
            ExitCode::diverged, {path.string(), "student", what, "learning rate"});
        EXPECT_FALSE(std::filesystem::exists(path));
    };
    refused([](EvaluatedModel& m) { m.tokens.loss[1] = NAN; }, "loss");
    refused([](EvaluatedModel& m) { m.tokens.kl[2] = HUGE_VAL; }, "KL");
    refused([](EvaluatedModel& m) { m.tokens.loss.assign(m.tokens.loss.size(), 800.0); }, "perplexity");
    teacher.answers = {"fingerprint", {-1.0}, {1}, {{}}};
    refused([](EvaluatedModel& m) { m.answers = {"fingerprint", {NAN}, {0}, {{}}}; }, "log-likelihood");
    teacher.answers.reset();
    write_evaluation(path, {teacher, student}, set, 2, {"softmax"}, Provenance{});
    EXPECT_NO_THROW(look_through_evaluation(path));
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    test::expect_error([&] { look_through_evaluation(path); }, ExitCode::damaged_file, {path.string()});
}

TEST_F(EvaluationFile, more_bins_than_positions_are_not_made) {
    write_evaluation(folder / "evaluation.h5", {student}, set, 100, {"softmax"}, Provenance{});
    EXPECT_EQ(H5File::open(folder / "evaluation.h5").read_integers("/position_edges"),
              (std::vector<int64_t>{0, 1, 2, 3, 4}));
}

TEST_F(EvaluationFile, no_answers_no_accuracy) {
    set.answers = {{}, {}};
    write_evaluation(folder / "evaluation.h5", {student}, set, 2, {"softmax"}, Provenance{});
    EXPECT_FALSE(H5File::open(folder / "evaluation.h5").has("/answer_accuracy"));
    EXPECT_EQ(summarise(student, set).answer_count, 0);
}

}  // namespace
}  // namespace amalgam
