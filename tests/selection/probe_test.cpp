// SPDX-License-Identifier: Apache-2.0
// Candidates that are put together block by block, against models made for their layouts; what is measured of them,
// against the measurements of finished students.
#include "selection/probe.h"

#include <ATen/core/grad_mode.h>

#include <set>

#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "evaluation/recall.h"
#include "evaluation/statistics.h"
#include "job/training_plan.h"
#include "model/weights.h"
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
    const auto kl = held_out_kl(*student, states, held_out, held_out_batch(40), 0, world);
    const auto tokens = measure_tokens(*student, nullptr, held_out, held_out_batch(40), 0, world);
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
    const auto kl = held_out_kl(*student, states, documents, held_out_batch(40), 0, world);
    const auto tokens = measure_tokens(*student, nullptr, documents, held_out_batch(40), 0, world);
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

at::Tensor far_context_of(const CausalLM& teacher, const TokenBatch& batch, const FarContextJob& job) {
    const at::NoGradGuard no_grad;
    const HeldOuterWeights outer(teacher);
    return needs_far_context(teacher, outer.head(), batch, teacher.hidden(batch).flatten(0, 1), job, 0);
}

/// Windows begin at multiples of 4 tokens, as these documents do.
TEST_F(AssembledModels, far_context_is_that_of_the_same_document) {
    FarContextJob job;
    job.window = 4;
    job.gain = 0.02;
    const at::Tensor tokens = test::random_tokens(2, 40, 61, 5);
    const TokenBatch batch(tokens, Borders{{8, 20}, {16}});
    std::vector<at::Tensor> alone;
    int64_t first = 0;
    for (const int64_t length : batch.documents->lengths()) {
        alone.push_back(far_context_of(*teacher, tokens.flatten().narrow(0, first, length).unsqueeze(0), job));
        first += length;
    }
    const at::Tensor found = far_context_of(*teacher, batch, job);
    EXPECT_TRUE(at::equal(found, at::cat(alone)));
    EXPECT_GT(found.sum().item<int64_t>(), 3);
    EXPECT_FALSE(at::equal(found, far_context_of(*teacher, tokens, job)));
}

/// The loss of the token after each of a sequence, with the last `context` tokens alone.
std::vector<double> loss_with_context(const CausalLM& model, const at::Tensor& tokens, int64_t context) {
    std::vector<double> losses;
    for (int64_t t = 0; t + 1 < tokens.size(0); ++t) {
        const int64_t first = std::max<int64_t>(0, t + 1 - context);
        const at::Tensor logits = model.logits(tokens.narrow(0, first, t + 1 - first).unsqueeze(0))[0][-1];
        losses.push_back(-at::log_softmax(logits.to(at::kDouble), 0)[tokens[t + 1].item<int64_t>()].item<double>());
    }
    return losses;
}

/// The context of a prediction in the second half of a window of 2 W tokens, one of which begins at every W-th token.
int64_t near_context(int64_t place, int64_t window) {
    return place < window ? place + 1 : window + place % window + 1;
}

TEST_F(AssembledModels, that_need_far_context_are_those_whose_loss_falls_with_it) {
    const at::NoGradGuard no_grad;
    const FarContextJob job{.weight = 1.0, .window = 5, .gain = 0.01};
    const at::Tensor found = far_context_of(*teacher, held_out.tokens, job).view_as(held_out.tokens);
    int64_t far = 0;
    for (int64_t s = 0; s < held_out.sequences(); ++s) {
        const at::Tensor tokens = held_out.tokens[s];
        const auto whole = loss_with_context(*teacher, tokens, 40);
        for (int64_t t = 0; t + 1 < 40; ++t) {
            const double near = loss_with_context(*teacher, tokens.narrow(0, 0, t + 2), near_context(t, 5)).back();
            const double gain = near - whole[size_t(t)];
            if (std::abs(gain - job.gain) < 1e-5) continue;  // rounding decides
            EXPECT_EQ(found[s][t].item<bool>(), t >= 10 && gain >= job.gain) << s << ", " << t << ": " << gain;
            far += t >= 10 && gain >= job.gain;
        }
        EXPECT_FALSE(found[s][39].item<bool>()) << "nothing follows";
    }
    EXPECT_GT(far, 10);
    EXPECT_LT(far, 6 * 29 - 10);
}

/// What the built-in teacher knows of random words is that a passage which began again goes on as before.
class RepeatedPassages : public testing::Test {
  protected:
    static constexpr int64_t window = 48, passage = 40, known = 3;  // tokens after which a passage is recognised

    /// Random words, of which the passage at `first` stands at `again` too.
    static at::Tensor words(int64_t first, int64_t again) {
        const at::Tensor tokens = 20 + test::random_tokens(1, 256, 600, 5);
        tokens.narrow(1, again, passage).copy_(tokens.narrow(1, first, passage).clone());
        return tokens;
    }

    /// The share of predictions that need far context among those from `begin` to before `end`.
    double far(const at::Tensor& tokens, int64_t begin, int64_t end) const {
        const at::Tensor found = far_context_of(*teacher, tokens, {.weight = 1.0, .window = window});
        return found.narrow(0, begin, end - begin).to(at::kDouble).mean().item<double>();
    }

    const std::unique_ptr<CausalLM> teacher =
        load_teacher(std::string(AMALGAM_BUILTIN_FOLDER) + "/teacher", test::device(), at::kFloat);
};

TEST_F(RepeatedPassages, need_far_context_where_they_began_far_away) {
    const int64_t again = 20 + 2 * window + passage;
    const at::Tensor tokens = words(20, again);
    EXPECT_GT(far(tokens, again + known, again + passage - 1), 0.7);
    EXPECT_LT(far(tokens, 0, again), 0.1) << "random words before";
    EXPECT_LT(far(tokens, again + passage, 255), 0.1) << "and after";
}

TEST_F(RepeatedPassages, need_no_far_context_where_they_began_near_by) {
    const int64_t again = 20 + 2 * window + passage;
    const at::Tensor tokens = words(again - passage - 4, again);
    EXPECT_LT(far(tokens, again + known, again + passage - 1), 0.1);
}

TEST_F(AssembledModels, are_measured_on_tokens_that_need_far_context) {
    const FarContextJob job{.weight = 1.0, .window = 5, .gain = 0.01};
    const Probe probe(*teacher, held_out, questions.get(), 0, 1 << 30, world, job);
    AssembledModel model(*teacher, *aligned, 0);
    const Layout layout = keep_softmax(4, test::linear_mixer, {1});
    const ProbeSamples found = measured(probe, model, layout);
    const at::NoGradGuard no_grad;
    const auto student = with_layout(layout);
    TeacherStates states(*teacher, 0);
    const auto kl = measure_tokens(*student, &states, held_out, held_out_batch(40), 0, world).kl;
    const at::Tensor far = far_context_of(*teacher, held_out.tokens, job);
    double sum = 0.0, count = 0.0;
    for (int64_t i = 0; i < far.numel(); ++i)
        if (far[i].item<bool>()) sum += kl[size_t(i)], count += 1.0;
    EXPECT_EQ(probe.far_tokens(), int64_t(count));
    const auto& samples = found.at("far_kl");
    ASSERT_EQ(samples.size(), 6U);
    EXPECT_NEAR(mean_and_error(samples).mean, sum / count, 1e-6);
    double squares = 0.0;  // the error of a ratio of sums
    for (int64_t s = 0; s < 6; ++s) {
        double rest = 0.0;
        for (int64_t i = 40 * s; i < 40 * (s + 1); ++i)
            if (far[i].item<bool>()) rest += kl[size_t(i)] - sum / count;
        squares += rest * rest;
    }
    EXPECT_NEAR(mean_and_error(samples).standard_error, std::sqrt(squares / 5.0 / 6.0) / (count / 6.0), 1e-6);
    for (const double value : measured(probe, model, all_softmax(4)).at("far_kl")) EXPECT_NEAR(value, 0.0, 1e-9);
}

TEST_F(AssembledModels, the_number_of_ranks_changes_no_bit_of_far_context) {
    const FarContextJob job{.weight = 1.0, .window = 5, .gain = 0.01};
    const Layout layout = keep_softmax(4, test::linear_mixer, {0, 2});
    AssembledModel model(*teacher, *aligned, 0);
    const Communicator none;
    const Probe alone(*teacher, held_out, questions.get(), 0, 0, none, job),
        together(*teacher, held_out, questions.get(), 0, 0, world, job);
    EXPECT_EQ(alone.far_tokens(), together.far_tokens());
    EXPECT_EQ(measured(alone, model, layout), measured(together, model, layout));
}

/// Questions are then batched in another way, which rounding shows.
TEST_F(AssembledModels, are_measured_part_by_part_as_at_once) {
    const FarContextJob job{.weight = 1.0, .window = 5, .gain = 0.01};
    const Probe at_once(*teacher, held_out, questions.get(), 0, 0, world, job),
        divided(*teacher, held_out, questions.get(), 0, 0, world, job, 2);
    EXPECT_EQ(at_once.tokens(), divided.tokens());
    AssembledModel model(*teacher, *aligned, 0), other(*teacher, *aligned, 0);
    const Layout layout = keep_softmax(4, test::linear_mixer, {0, 2});
    const ProbeSamples expected = measured(at_once, model, layout), found = measured(divided, other, layout);
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, values] : expected)
        for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(found.at(name)[i], values[i], 1e-5) << name;

    ProbeProgress progress = divided.begin();
    divided.measure_next([&](const TokenBatch& batch, int64_t number) { return other.hidden(batch, layout, number); },
                         progress);
    EXPECT_EQ(progress.sequences, (std::vector<bool>{true, true, true, true, false, false}));
    int64_t asked = 0, tokens = 4 * 40;
    std::set<int64_t> lengths;
    for (int64_t q = 0; q < questions->size(); ++q) {
        if (!progress.questions[size_t(q)]) continue;
        ++asked;
        tokens += questions->length(q);
        lengths.insert(questions->length(q));
        EXPECT_EQ(progress.samples.at("recall_kl")[size_t(q)], found.at("recall_kl")[size_t(q)]);
    }
    EXPECT_EQ(asked, questions->size() / 2);
    EXPECT_EQ(lengths, (std::set<int64_t>{64, 100}));
    EXPECT_EQ(progress.tokens, tokens);
    EXPECT_EQ(progress.samples.at("kl")[3], found.at("kl")[3]);
    EXPECT_EQ(progress.samples.at("kl")[4], 0.0);

    const auto sums = divided.in_sums(found).at("far_kl"), measured_sums = progress.samples.at("far_kl");
    for (size_t s = 0; s < 4; ++s) EXPECT_NEAR(sums[s], measured_sums[s], 1e-9);
}

TEST_F(AssembledModels, no_token_that_needs_far_context_is_an_error) {
    const FarContextJob far_off{.weight = 1.0, .window = 5, .gain = 50.0}, too_long{.weight = 1.0, .window = 20};
    for (const FarContextJob& job : {far_off, too_long})
        test::expect_error([&] { Probe(*teacher, held_out, nullptr, 0, 0, world, job); }, ExitCode::bad_input,
                           {"score.far_context.gain", "none of the held-out tokens"});
}

TEST_F(AssembledModels, text_alone_asks_nothing) {
    const Probe probe(*teacher, held_out, nullptr, 0, 0, world);
    AssembledModel model(*teacher, *aligned, 0);
    const ProbeSamples found = measured(probe, model, all_linear(4, test::linear_mixer));
    EXPECT_FALSE(found.contains("recall_kl"));
    EXPECT_FALSE(found.contains("far_kl"));
    EXPECT_EQ(probe.far_tokens(), 0);
    EXPECT_EQ(found.at("kl").size(), 6U);
}

}  // namespace
}  // namespace amalgam
