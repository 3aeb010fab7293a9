// SPDX-License-Identifier: Apache-2.0
// Measurements with a piece of each sequence on each rank, against one process that has whole sequences.
#include "../model/small_model.h"
#include "../questions/recall_contents.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "evaluation/continuations.h"
#include "evaluation/held_out.h"
#include "evaluation/recall.h"
#include "mixers/sequence_pieces.h"
#include "sharded_student.h"
#include "sharding/context_ranks.h"

namespace amalgam {
namespace {

/// 150 tokens: two chunks and a rest, of which ranks get pieces of unequal length.
constexpr int64_t length = 150, sequences = 7, micro_batch = 3, loss_chunk = 40;

class MeasuredInPieces : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        test::write_tokens(folder / "tokens.h5", test::simple_text(sequences * length, 61, 3), 61);
        set = read_held_out(TokenFile(folder / "tokens.h5"), sequences, length);
        test::write_tokens(folder / "text.h5", test::sentences(2000), 61);
        text = std::make_unique<TokenFile>(folder / "text.h5");
        questions = std::make_unique<RecallQuestions>(job, test::small_wording(), *text);
    }

    static void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
        ASSERT_EQ(found.size(), expected.size());
        for (size_t i = 0; i < found.size(); ++i)
            EXPECT_NEAR(found[i], expected[i], 1e-4 * std::abs(expected[i]) + 1e-6) << i;
    }

    struct Measured {
        std::vector<double> kl;
        TokenMeasurements tokens;
        RecallAnswers recall;
    };
    Measured measured(const CausalLM& model, const CausalLM& of_teacher, const SequenceRanks& ranks,
                      int64_t cache_bytes = 0) const {
        TeacherStates states(of_teacher, cache_bytes);
        return {held_out_kl(model, states, set, micro_batch, loss_chunk, ranks),
                measure_tokens(model, &states, set, micro_batch, loss_chunk, ranks),
                measure_recall(model, *questions, loss_chunk, ranks)};
    }
    Measured measured(const SequenceRanks& ranks, int64_t cache_bytes = 0) const {
        return measured(*student, *teacher, ranks, cache_bytes);
    }

    static void expect_near(const Measured& found, const Measured& expected) {
        expect_near(found.kl, expected.kl);
        expect_near(found.tokens.loss, expected.tokens.loss);
        expect_near(found.tokens.kl, expected.tokens.kl);
        EXPECT_EQ(found.tokens.correct, expected.tokens.correct);
        expect_near(found.recall.loss, expected.recall.loss);
        EXPECT_EQ(found.recall.right, expected.recall.right);
        EXPECT_EQ(found.recall.checksum, expected.recall.checksum);
    }
    static void expect_same_bits(const Measured& found, const Measured& expected) {
        EXPECT_EQ(found.kl, expected.kl);
        EXPECT_EQ(found.tokens.loss, expected.tokens.loss);
        EXPECT_EQ(found.tokens.kl, expected.tokens.kl);
        EXPECT_EQ(found.recall.loss, expected.recall.loss);
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const std::unique_ptr<ContextGroup> context = make_context_group(world, test::device());
    /// Halves of four ranks.
    const Communicator pair = world.split(world.rank() / 2);
    const std::unique_ptr<ContextGroup> of_pair =
        world.size() == 4 ? make_context_group(pair, test::device()) : nullptr;

    const ModelConfig config = test::small_config("llama", 4);
    std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(4), {}}, 1);
    /// All linear mixers beside softmax.
    std::unique_ptr<CausalLM> student = test::small_model(
        {config, {"gated_delta_net", softmax_mixer, "kimi_delta_attention", "gated_linear_attention"}, {}}, 2, true);
    RecallJob job{.questions = 2, .lengths = {64, 101}, .depths = {0, 50, 100}};
    std::unique_ptr<TokenFile> text;
    std::unique_ptr<RecallQuestions> questions;
    HeldOutSet set;
};

TEST_F(MeasuredInPieces, are_measured_as_whole_sequences_are) {
    const Measured expected = measured(Communicator());
    EXPECT_GT(expected.kl[0], 0.1);
    expect_near(measured({world, context.get()}), expected);
}

TEST_F(MeasuredInPieces, of_documents_that_are_kept_apart_too) {
    set.borders = {{64}, {1, 2, 63, 65, 128, 149}, {}, {75}, {74, 75, 76}, {}, {128}};
    expect_near(measured({world, context.get()}), measured(Communicator()));
}

/// What one rank has room for and another has not, neither keeps: else one would wait for the other's pass.
TEST_F(MeasuredInPieces, keep_the_teachers_states_alike) {
    const int64_t of_token = config.hidden_size * int64_t(sizeof(float));
    const SequenceRanks ranks(world, context.get());
    const auto expected = measured(ranks).kl;
    struct Case {
        int64_t tokens, computed;  // room for so many; micro-batches, of 3, 3 and 1 sequences
    };
    for (const Case& c : {Case{micro_batch * (longest_piece(length, world.size()) - 1), 3 + 2}, Case{10 * length, 3}}) {
        TeacherStates states(*teacher, c.tokens * of_token);
        for (int round = 0; round < 2; ++round)
            EXPECT_EQ(held_out_kl(*student, states, set, micro_batch, loss_chunk, ranks), expected) << round;
        EXPECT_EQ(states.computed(), c.computed);
    }
}

/// The last rank of two has most of an answer, the first its beginning.
TEST_F(MeasuredInPieces, answers_may_lie_across_pieces) {
    const at::Tensor tokens = test::random_tokens(2, 131, 61, 5).cpu();
    std::vector<std::vector<int32_t>> rows;
    for (int64_t s = 0; s < 2; ++s) {
        const int64_t* row = tokens[s].const_data_ptr<int64_t>();
        rows.emplace_back(row, row + (s == 0 ? 131 : 90));
    }
    const std::vector<Continuation> batch = {{rows[0], 20}, {rows[1], 60}};
    const auto expected = judge_continuations(*teacher, batch, 0),
               own = judge_continuations(*teacher, batch, 0, context.get());
    for (size_t row = 0; row < batch.size(); ++row) {
        EXPECT_NEAR(world.sum(own[row].loglikelihood), expected[row].loglikelihood, 1e-3);
        EXPECT_EQ(world.all(own[row].greedy), expected[row].greedy);
    }
    EXPECT_LT(own[0].loglikelihood, 0.0) << "all have a part of this one";
}

TEST_F(MeasuredInPieces, the_number_of_groups_changes_no_bit) {
    if (!of_pair) GTEST_SKIP() << "two groups of two ranks";
    const Measured of_one = measured({pair, of_pair.get()});
    expect_same_bits(measured({world, of_pair.get()}), of_one);
    expect_same_bits(measured({world, of_pair.get()}, 1 << 20), of_one);
}

/// Three micro-batches for two groups: one goes on with an empty one.
TEST_F(MeasuredInPieces, of_sharded_models_too) {
    const SequenceRanks ranks(world, of_pair ? of_pair.get() : context.get());
    const Measured expected = measured(ranks);
    for (const auto strategy : test::strategies(world)) {
        const test::ShardedCopy model(*student, true, world, test::sharding(strategy)),
            of_teacher(*teacher, false, world, test::sharding(strategy));
        expect_same_bits(measured(*model.model, *of_teacher.model, ranks), expected);
    }
}

}  // namespace
}  // namespace amalgam
