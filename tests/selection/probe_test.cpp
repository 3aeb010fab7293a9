// SPDX-License-Identifier: Apache-2.0
// Candidates that are put together block by block, against models made for their layouts; what is measured of them,
// against the measurements of finished students.
#include "selection/probe.h"

#include "../evaluation/recall_contents.h"
#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "evaluation/recall.h"
#include "rules/scorers.h"
#include "selection/assembled_model.h"

namespace amalgam {
namespace {

const ModelConfig config = test::small_config("qwen3", 4);

/// Weights depend on seed and name: any two of these have the same ones where their layouts agree.
std::unique_ptr<CausalLM> with_layout(const Layout& layout) {
    return test::small_model(ModelSpec{config, layout, {}}, 3);
}

class AssembledModels : public test::TemporaryFolder {
  protected:
    AssembledModels() {
        test::write_tokens(folder / "text.h5", test::sentences(2000), 61);
        text = std::make_unique<TokenFile>(folder / "text.h5");
        questions = std::make_unique<RecallQuestions>(job, test::small_wording(), *text);
        held_out = read_held_out(*text, 6, 40);
    }

    ProbeSamples measured(const Probe& probe, AssembledModel& model, const Layout& layout) {
        return probe.measure(
            [&](const TokenBatch& batch, int64_t number) { return model.hidden(batch, layout, number); });
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    RecallJob job{.questions = 2, .lengths = {64, 100}, .depths = {0, 50, 100}};
    std::unique_ptr<TokenFile> text;
    std::unique_ptr<RecallQuestions> questions;
    HeldOutSet held_out;
    std::unique_ptr<CausalLM> teacher = with_layout(all_softmax(4)),
                              aligned = with_layout(all_linear(4, test::linear_mixer));
};

TEST_F(AssembledModels, are_models_of_their_layout) {
    const at::Tensor tokens = test::random_tokens(2, 30, 61, 1);
    for (const int64_t kept_bytes : {int64_t{0}, int64_t{1} << 30}) {
        AssembledModel model(*teacher, *aligned, kept_bytes);
        std::vector<Layout> layouts = {all_softmax(4), all_linear(4, test::linear_mixer)};
        for (const Candidate& one : restored_and_removed_scorer().next({4, test::linear_mixer}))
            layouts.push_back(one.layout);
        for (const Layout& layout : layouts) {
            const at::Tensor expected = with_layout(layout)->hidden(tokens);
            EXPECT_TRUE(at::equal(model.hidden(tokens, layout, 0), expected)) << describe(layout);
        }
    }
}

TEST_F(AssembledModels, begin_where_they_differ_from_the_one_before) {
    const at::Tensor tokens = test::random_tokens(2, 30, 61, 1);
    AssembledModel model(*teacher, *aligned, 1 << 30);
    for (const Candidate& one : aligned_removed_layer_scorer().next({4, test::linear_mixer}))
        model.hidden(tokens, one.layout, 0);
    EXPECT_EQ(model.computed_blocks(), 4 + 2 + 3 + 4) << "without layer 3, 2, 1, 0";
    model.hidden(tokens, all_softmax(4), 1);
    EXPECT_EQ(model.computed_blocks(), 13 + 4) << "other tokens";
    AssembledModel forgetful(*teacher, *aligned, 1);
    for (const Candidate& one : aligned_removed_layer_scorer().next({4, test::linear_mixer}))
        forgetful.hidden(tokens, one.layout, 0);
    EXPECT_EQ(forgetful.computed_blocks(), 16);
}

/// Zeros instead of an attention output: the teacher with an output projection of zeros.
TEST_F(AssembledModels, without_a_layers_attention) {
    const at::Tensor tokens = test::random_tokens(2, 30, 61, 1);
    const auto without = with_layout(all_softmax(4));
    for (Parameter& parameter : without->parameters().all())
        if (parameter.name == "model.layers.2.self_attn.o_proj.weight") parameter.compute.zero_();
    AssembledModel model(*teacher, *aligned, 0);
    const at::Tensor found = model.hidden(tokens, {"softmax", "softmax", ablated_mixer, "softmax"}, 0);
    EXPECT_TRUE(at::equal(found, without->hidden(tokens)));
    EXPECT_FALSE(at::equal(found, teacher->hidden(tokens)));
}

TEST_F(AssembledModels, are_measured_as_students_are) {
    const Probe probe(*teacher, held_out, questions.get(), 0, 1 << 30, world);
    AssembledModel model(*teacher, *aligned, 1 << 30);
    const Layout layout = keep_softmax(4, test::linear_mixer, {1});
    const ProbeSamples found = measured(probe, model, layout);
    const auto student = with_layout(layout);
    TeacherStates states(*teacher, 0);
    const auto kl = held_out_kl(*student, states, held_out, held_out_micro_batch, 0, world);
    const auto tokens = measure_tokens(*student, nullptr, held_out, held_out_micro_batch, 0, world);
    for (size_t s = 0; s < kl.size(); ++s) {
        EXPECT_NEAR(found.at("kl")[s], kl[s], 1e-6);
        double loss = 0.0, correct = 0.0;
        for (size_t t = 0; t < 39; ++t) {
            loss += tokens.loss[s * 40 + t] / 39.0;
            correct += tokens.correct[s * 40 + t] / 39.0;
        }
        EXPECT_NEAR(found.at("loss")[s], loss, 1e-6);
        EXPECT_NEAR(found.at("accuracy")[s], correct, 1e-12);
        EXPECT_GT(found.at("hidden_state_error")[s], 0.0);
    }
    const RecallAnswers answers = measure_recall(*student, *questions, 0, world);
    ASSERT_EQ(found.at("recall_loss").size(), answers.loss.size());
    for (size_t q = 0; q < answers.loss.size(); ++q) {
        EXPECT_NEAR(found.at("recall_loss")[q], answers.loss[q], 1e-5);
        EXPECT_EQ(found.at("recall")[q], answers.right[q]);
        EXPECT_GT(found.at("recall_kl")[q], 0.0);
    }
}

TEST_F(AssembledModels, are_measured_as_students_are_on_documents_that_are_kept_apart) {
    test::write_tokens(folder / "documents.h5", test::sentences(2000), 61, {}, "none",
                       test::document_borders(2000, 15, 1));
    const HeldOutSet documents = read_held_out(TokenFile(folder / "documents.h5"), 6, 40, DocumentBorders::separate);
    const Probe probe(*teacher, documents, nullptr, 0, 1 << 30, world);
    AssembledModel model(*teacher, *aligned, 1 << 30);
    const Layout layout = keep_softmax(4, test::linear_mixer, {1});
    const ProbeSamples found = measured(probe, model, layout);
    const auto student = with_layout(layout);
    TeacherStates states(*teacher, 0);
    const auto kl = held_out_kl(*student, states, documents, held_out_micro_batch, 0, world);
    const auto tokens = measure_tokens(*student, nullptr, documents, held_out_micro_batch, 0, world);
    const auto predicts = documents.predicts();
    for (size_t s = 0; s < kl.size(); ++s) {
        EXPECT_NEAR(found.at("kl")[s], kl[s], 1e-6);
        double loss = 0.0, correct = 0.0, predictions = 0.0;
        for (size_t t = s * 40; t < (s + 1) * 40; ++t) {
            if (!predicts[t]) continue;
            loss += tokens.loss[t];
            correct += tokens.correct[t];
            ++predictions;
        }
        EXPECT_LT(predictions, 39);
        EXPECT_NEAR(found.at("loss")[s], loss / predictions, 1e-6);
        EXPECT_NEAR(found.at("accuracy")[s], correct / predictions, 1e-12);
    }
}

TEST_F(AssembledModels, that_are_the_teacher_differ_in_nothing) {
    const Probe probe(*teacher, held_out, questions.get(), 0, 0, world);
    AssembledModel model(*teacher, *aligned, 0);
    const ProbeSamples found = measured(probe, model, all_softmax(4));
    for (const char* name : {"kl", "hidden_state_error", "recall_kl"})
        for (const double value : found.at(name)) EXPECT_NEAR(value, 0.0, 1e-9) << name;
}

TEST_F(AssembledModels, the_number_of_ranks_changes_no_bit) {
    const Layout layout = keep_softmax(4, test::linear_mixer, {0, 2});
    AssembledModel model(*teacher, *aligned, 0);
    const Communicator none;
    const Probe alone(*teacher, held_out, questions.get(), 0, 0, none),
        together(*teacher, held_out, questions.get(), 0, 0, world);
    EXPECT_EQ(measured(alone, model, layout), measured(together, model, layout));
}

TEST_F(AssembledModels, text_alone_asks_nothing) {
    const Probe probe(*teacher, held_out, nullptr, 0, 0, world);
    AssembledModel model(*teacher, *aligned, 0);
    const ProbeSamples found = measured(probe, model, all_linear(4, test::linear_mixer));
    EXPECT_FALSE(found.contains("recall_kl"));
    EXPECT_EQ(found.at("kl").size(), 6U);
}

}  // namespace
}  // namespace amalgam
