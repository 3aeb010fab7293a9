// SPDX-License-Identifier: Apache-2.0
// What models recall, against greedy generation and on any number of ranks.
#include "evaluation/recall.h"

#include <cmath>

#include "../generation/whole_passes.h"
#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../sharding/sharded_student.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "evaluation/continuations.h"
#include "model/transfer.h"
#include "specification/hugging_face_config.h"

namespace amalgam {
namespace {

const ModelSpec hybrid{test::small_config("qwen3"), keep_softmax(3, test::linear_mixer, {1}), {}};

/// What a model generates after a context.
std::vector<int32_t> generated(const CausalLM& model, std::span<const int32_t> context, int64_t count) {
    return test::by_whole_passes(model, context, count);
}

TEST(Continuations, are_greedy_if_and_only_if_generation_gives_them) {
    const auto model = test::small_model(hybrid, 3);
    std::vector<std::vector<int32_t>> rows;
    std::vector<int64_t> contexts;
    for (const int64_t context : {70, 40, 33, 8, 1}) {
        const at::Tensor prompt = test::random_tokens(1, context, 61, uint64_t(context));
        std::vector<int32_t> row;
        for (int64_t t = 0; t < context; ++t) row.push_back(int32_t(prompt[0][t].item<int64_t>()));
        for (const int32_t token : generated(*model, row, 5)) row.push_back(token);
        for (int64_t wrong = -1; wrong < 5; ++wrong) {  // none, or this one of the five
            rows.push_back(row);
            contexts.push_back(context);
            if (wrong >= 0) rows.back()[size_t(context + wrong)] = (row[size_t(context + wrong)] + 1) % 61;
        }
    }
    std::vector<Continuation> batch;
    for (size_t i = 0; i < rows.size(); ++i) batch.push_back({rows[i], contexts[i]});
    const auto found = judge_continuations(*model, batch, 0);
    ASSERT_EQ(found.size(), rows.size());
    int64_t greedy = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
        const std::span<const int32_t> row = rows[i], context = row.first(size_t(contexts[i]));
        const auto best = generated(*model, context, 5);
        EXPECT_EQ(found[i].greedy, std::equal(best.begin(), best.end(), row.begin() + contexts[i])) << i;
        greedy += found[i].greedy;
        const std::vector<int64_t> wide(row.begin(), row.end());
        const at::Tensor log_p = at::log_softmax(
            model->logits(at::tensor(wide, at::kLong).unsqueeze(0).to(test::device()))[0].to(at::kDouble), -1);
        double expected = 0.0;
        for (int64_t t = contexts[i]; t < int64_t(row.size()); ++t)
            expected += log_p[t - 1][row[size_t(t)]].item<double>();
        EXPECT_NEAR(found[i].loglikelihood, expected, 1e-4) << i;
    }
    EXPECT_EQ(greedy, 5);  // one of each context: every altered answer counts as wrong
    EXPECT_TRUE(judge_continuations(*model, {}, 0).empty());
}

class Recall : public test::TemporaryFolder {
  protected:
    Recall() {
        test::write_tokens(folder / "text.h5", test::sentences(2000), 61);
        text = std::make_unique<TokenFile>(folder / "text.h5");
        questions = std::make_unique<RecallQuestions>(job, test::small_wording(), *text);
    }
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    RecallJob job{.questions = 2, .lengths = {64, 100}, .depths = {0, 50, 100}};
    std::unique_ptr<TokenFile> text;
    std::unique_ptr<RecallQuestions> questions;
    std::unique_ptr<CausalLM> model = test::small_model(hybrid, 3);
};

TEST_F(Recall, agrees_with_greedy_generation_of_every_answer) {
    const RecallAnswers found = measure_recall(*model, *questions, 0, world);
    ASSERT_EQ(int64_t(found.right.size()), questions->size());
    for (int64_t i = 0; i < questions->size(); ++i) {
        const RecallQuestion question = questions->make(i);
        const std::span<const int32_t> tokens = question.tokens, answer = tokens.subspan(size_t(question.context));
        const auto best = generated(*model, tokens.first(size_t(question.context)), int64_t(answer.size()));
        EXPECT_EQ(found.right[size_t(i)], std::equal(best.begin(), best.end(), answer.begin()) ? 1.0 : 0.0);
        const Continuation alone{tokens, question.context};
        EXPECT_NEAR(found.loss[size_t(i)], -judge_continuations(*model, {&alone, 1}, 0)[0].loglikelihood / 3.0, 1e-5);
    }
}

TEST_F(Recall, a_model_that_learned_nothing_recalls_nothing) {
    const RecallAnswers found = measure_recall(*model, *questions, 0, world);
    EXPECT_LT(mean_and_error(found.right).mean, 0.05);
    EXPECT_GT(mean_and_error(found.loss).mean, 0.5 * std::log(61.0));
}

TEST_F(Recall, the_number_of_ranks_changes_no_bit_and_no_question) {
    const RecallAnswers alone = measure_recall(*model, *questions, 0, Communicator()),
                        together = measure_recall(*model, *questions, 0, world);
    EXPECT_EQ(together.right, alone.right);
    EXPECT_EQ(together.loss, alone.loss);
    EXPECT_EQ(together.checksum, alone.checksum);
    EXPECT_GT(alone.checksum[0], 0.0);
    EXPECT_NE(alone.checksum[0], alone.checksum[1]);
}

/// Two batches: with three ranks one has none, and goes along.
TEST_F(Recall, a_sharded_model_recalls_the_same) {
    const test::ShardedCopy copy(*model, false, world, test::sharding(ShardingStrategy::full));
    const RecallAnswers whole = measure_recall(*model, *questions, 0, world),
                        sharded = measure_recall(*copy.model, *questions, 0, world);
    EXPECT_EQ(sharded.right, whole.right);
    EXPECT_EQ(sharded.loss, whole.loss);
    EXPECT_EQ(sharded.checksum, whole.checksum);
}

TEST_F(Recall, a_question_that_cannot_be_made_is_everybodys_failure) {
    job.lengths = {100, 2000};  // the file has as many, but not without the ends of documents
    job.kinds = {"noise", "text"};
    const RecallQuestions too_long(job, test::small_wording(), *text);
    test::expect_error([&] { measure_recall(*model, too_long, 0, world); }, ExitCode::bad_input, {"2000"});
}

TEST_F(Recall, accuracy_at_a_length_is_over_all_kinds_and_depths) {
    RecallAnswers answers{job, std::vector<double>(size_t(questions->size())), {}, {}};
    int64_t shorter = 0;
    for (int64_t i = 0; i < questions->size(); ++i)
        if (questions->length(i) == 64) answers.right[size_t(i)] = shorter++ % 4 == 0;
    EXPECT_EQ(shorter, questions->size() / 2);
    EXPECT_DOUBLE_EQ(recall_at_length(answers, 0).mean, 0.25);
    EXPECT_GT(recall_at_length(answers, 0).standard_error, 0.0);
    EXPECT_EQ(recall_at_length(answers, 1).mean, 0.0);
}

/// The built-in teacher was trained to recall; with linear mixers that have learned nothing it cannot.
TEST(RecallOfTheBuiltInTeacher, is_high_and_lost_without_its_attention) {
    const std::filesystem::path inputs = AMALGAM_BUILTIN_FOLDER;
    const HuggingFaceSource source(inputs / "teacher");
    const auto teacher = load_teacher(read_config(inputs / "teacher"), source, test::device(), at::kFloat);
    const TokenFile text(inputs / "validation.h5");
    const RecallJob job{.questions = 1, .lengths = {256}, .depths = {0, 50, 100}};
    const RecallQuestions questions(job, read_recall_wording(inputs / "validation.h5", job), text);
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    EXPECT_GT(mean_and_error(measure_recall(*teacher, questions, 0, world).right).mean, 0.8);

    const int64_t layers = teacher->config().layers;
    CausalLM student({teacher->config(), keep_softmax(layers, test::linear_mixer, {}), {}}, test::device(), at::kFloat,
                     false);
    const TransferSource transferred(source, student.spec(), KeyValueExpansion::per_head, 0);
    load_weights(student, {&transferred});
    EXPECT_LT(mean_and_error(measure_recall(student, questions, 0, world).right).mean, 0.2);
}

}  // namespace
}  // namespace amalgam
