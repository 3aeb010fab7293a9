// SPDX-License-Identifier: Apache-2.0
// Candidates that are measured, and gates that are trained, with a piece of each sequence on each rank, against one
// process that has whole sequences.
#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../sharding/sharded_student.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "mixers/sequence_pieces.h"
#include "selection/assembled_model.h"
#include "selection/gate_training.h"
#include "selection/probe.h"
#include "sharding/context_ranks.h"

namespace amalgam {
namespace {

constexpr int64_t layers = 4;
const ModelConfig config = test::small_config("qwen3", layers);

std::unique_ptr<CausalLM> with_layout(const Layout& layout) {
    return test::small_model(ModelSpec{config, layout, {}}, 3);
}

class ScoredInPieces : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        test::write_tokens(folder / "text.h5", test::sentences(4000), 61);
        text = std::make_unique<TokenFile>(folder / "text.h5");
        questions = std::make_unique<RecallQuestions>(asked, test::small_wording(), *text);
        held_out = read_held_out(*text, 6, 150);
    }

    ProbeSamples measured(const CausalLM& of_teacher, const CausalLM& of_aligned, const SequenceRanks& ranks,
                          const Layout& layout, int64_t kept_bytes = 0) const {
        const Probe probe(of_teacher, held_out, questions.get(), 0, kept_bytes, ranks, far_context, 2);
        AssembledModel model(of_teacher, of_aligned, kept_bytes);
        const auto forward = [&](const Layout& of_model) {
            return probe.measure([&](const TokenBatch& batch, int64_t number) {
                return model.hidden(batch, of_model, number, ranks.context);
            });
        };
        forward(all_linear(layers, test::linear_mixer));  // what is kept of it begins the next pass
        return forward(layout);
    }
    ProbeSamples measured(const SequenceRanks& ranks, int64_t kept_bytes = 0) const {
        return measured(*teacher, *aligned, ranks, layout, kept_bytes);
    }

    static void expect_near(const ProbeSamples& found, const ProbeSamples& expected) {
        ASSERT_EQ(found.size(), expected.size());
        for (const auto& [name, values] : expected)
            for (size_t i = 0; i < values.size(); ++i)
                EXPECT_NEAR(found.at(name)[i], values[i], 1e-4 * std::abs(values[i]) + 1e-6) << name << ' ' << i;
    }

    GateCourse gates(const SequenceRanks& ranks, Activations activations, const std::string& file,
                     GateObjective objective = GateObjective::kl) const {
        ScoreJob job;
        job.sequence_length = 70;
        job.batch_sequences = 4;
        job.recall = {.questions = 1, .kinds = {"text", "noise"}, .lengths = {48, 65}, .depths = {0, 50}, .seed = 1};
        job.gates.steps = 4;
        job.gates.learning_rate = 0.25;
        job.gates.objective = objective;
        job.gates.penalty = 1000.0;  // gates close from the first step on
        job.far_context = {.weight = 2.0, .window = 4, .gain = 0.01};
        const GateBatches batches(*text, job, test::small_wording(), 11);
        StopRequest never(folder, 0.0);
        return train_gates({.job = job,
                            .world = ranks.group,
                            .context = ranks.context,
                            .teacher = *teacher,
                            .aligned = *aligned,
                            .batches = batches,
                            .activations = activations,
                            .file = folder / file,
                            .provenance = Provenance{},
                            .stop = never})
            .value();
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const std::unique_ptr<ContextGroup> context = make_context_group(world, test::device());
    /// Halves of four ranks.
    const Communicator pair = world.split(world.rank() / 2);
    const std::unique_ptr<ContextGroup> of_pair =
        world.size() == 4 ? make_context_group(pair, test::device()) : nullptr;

    RecallJob asked{.questions = 2, .lengths = {64, 101}, .depths = {0, 50, 100}};
    FarContextJob far_context{.weight = 1.0, .window = 20, .gain = 0.01};
    const Layout layout = keep_softmax(layers, test::linear_mixer, {1, 2});
    std::unique_ptr<TokenFile> text;
    std::unique_ptr<RecallQuestions> questions;
    HeldOutSet held_out;
    std::unique_ptr<CausalLM> teacher = with_layout(all_softmax(layers)),
                              aligned = with_layout(all_linear(layers, test::linear_mixer));
};

TEST_F(ScoredInPieces, candidates_are_measured_as_on_whole_sequences) {
    const ProbeSamples expected = measured(Communicator());
    EXPECT_GT(expected.at("recall_kl")[0], 0.0);
    expect_near(measured({world, context.get()}), expected);
}

/// Windows of far context end with documents, too.
TEST_F(ScoredInPieces, documents_are_kept_apart_as_on_whole_sequences) {
    held_out.borders = {{10, 64, 75}, {}, {90}, {1, 63, 128}, {}, {75, 149}};
    const ProbeSamples expected = measured(Communicator());
    EXPECT_GT(expected.at("far_kl")[0], 0.0);
    expect_near(measured({world, context.get()}), expected);
}

/// Room for the shorter pieces of a batch, and not for the longer ones; room for some of the passes; room for all.
TEST_F(ScoredInPieces, states_are_kept_alike) {
    const SequenceRanks ranks(world, context.get());
    const ProbeSamples expected = measured(ranks);
    const int64_t of_token = config.hidden_size * int64_t(sizeof(float));
    for (const int64_t tokens : {4 * (longest_piece(150, world.size()) - 1), int64_t{3000}, int64_t{1} << 20})
        EXPECT_EQ(measured(ranks, tokens * of_token), expected) << tokens;
}

TEST_F(ScoredInPieces, the_number_of_groups_changes_no_bit) {
    if (!of_pair) GTEST_SKIP() << "two groups of two ranks";
    EXPECT_EQ(measured({world, of_pair.get()}), measured({pair, of_pair.get()}));
    EXPECT_EQ(
        gates({world, of_pair.get()}, Activations::keep, "four.h5").gates,
        gates({pair, of_pair.get()}, Activations::keep, "pair-" + std::to_string(world.rank() / 2) + ".h5").gates);
}

TEST_F(ScoredInPieces, of_sharded_models_too) {
    const SequenceRanks ranks(world, of_pair ? of_pair.get() : context.get());
    const ProbeSamples expected = measured(ranks);
    const test::ShardedCopy of_teacher(*teacher, false, world, test::sharding(ShardingStrategy::full)),
        of_aligned(*aligned, false, world, test::sharding(ShardingStrategy::full));
    EXPECT_EQ(measured(*of_teacher.model, *of_aligned.model, ranks, layout), expected);
}

TEST_F(ScoredInPieces, gates_are_trained_as_on_whole_sequences) {
    for (const GateObjective objective : {GateObjective::kl, GateObjective::hidden_states}) {
        const std::string name(name_of(objective));
        const GateCourse expected =
            gates(Communicator(), Activations::keep, name + "-" + std::to_string(world.rank()) + ".h5", objective);
        EXPECT_EQ(expected.kl.empty(), objective == GateObjective::hidden_states);
        for (const Activations activations : {Activations::keep, Activations::recompute}) {
            const GateCourse found = gates({world, context.get()}, activations,
                                           name + "-" + std::string(name_of(activations)) + ".h5", objective);
            ASSERT_EQ(found.gates.size(), expected.gates.size());
            EXPECT_NEAR(found.penalty, expected.penalty, 1e-4 * expected.penalty);
            for (const auto values :
                 {&GateCourse::kl, &GateCourse::recall_kl, &GateCourse::far_kl, &GateCourse::state_error}) {
                ASSERT_EQ((found.*values).size(), (expected.*values).size());
                for (size_t step = 0; step < (expected.*values).size(); ++step)
                    EXPECT_NEAR((found.*values)[step], (expected.*values)[step], 1e-3 * (expected.*values)[step] + 1e-6)
                        << step;
            }
            for (size_t step = 1; step < expected.gates.size(); ++step)
                for (size_t layer = 0; layer < size_t(layers); ++layer)
                    EXPECT_NEAR(found.gates[step][layer], expected.gates[step][layer], 1e-3) << step << layer;
        }
    }
}

}  // namespace
}  // namespace amalgam
