// SPDX-License-Identifier: Apache-2.0
// Held-out measurements on any number of ranks.
#include "evaluation/held_out.h"

#include <numeric>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "../training/small_corpus.h"
#include "training/batches.h"

namespace amalgam {
namespace {

constexpr int64_t length = 12, sequences = 7;

class HeldOut : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        const auto tokens = test::simple_text(8 * length, 61, 3);
        test::write_tokens(folder / "tokens.h5", tokens, 61, {0, 5, 12, 30});
        file = std::make_unique<TokenFile>(folder / "tokens.h5");
        set = read_held_out(*file, sequences, length);
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const ModelConfig config = test::small_config("qwen3");
    std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(3), {}}, 1);
    std::unique_ptr<CausalLM> student =
        test::small_model({config, keep_softmax(3, test::linear_mixer, {1}), {}}, 2, true);
    std::unique_ptr<TokenFile> file;
    HeldOutSet set;
};

TEST_F(HeldOut, sequences_and_answers_of_the_file) {
    EXPECT_EQ(set.sequences(), sequences);
    EXPECT_EQ(set.time(), length);
    EXPECT_TRUE(at::equal(set.tokens, read_sequences(*file, length, 0, sequences)));
    // Positions 0 and 12 are the first of their sequences: nothing predicts them.
    EXPECT_EQ(set.answers[0], (std::vector<int64_t>{5}));
    EXPECT_TRUE(set.answers[1].empty());
    EXPECT_EQ(set.answers[2], (std::vector<int64_t>{6}));
    test::expect_error([&] { read_held_out(*file, 9, length); }, ExitCode::bad_input, {"data.validation", "8", "9"});
}

TEST_F(HeldOut, divergence_of_the_teacher_from_itself_is_zero) {
    TeacherStates states(*teacher, 0);
    for (const double kl : held_out_kl(*teacher, states, set, 2, 5, world)) EXPECT_NEAR(kl, 0.0, 1e-6);
}

TEST_F(HeldOut, divergence_is_the_mean_over_the_tokens_of_a_sequence) {
    const at::Tensor log_t = at::log_softmax(teacher->logits(set.tokens).to(at::kDouble), -1),
                     log_s = at::log_softmax(student->logits(set.tokens).detach().to(at::kDouble), -1);
    const at::Tensor expected = (log_t.exp() * (log_t - log_s)).sum(-1).mean(1);
    TeacherStates states(*teacher, 0);
    const auto found = held_out_kl(*student, states, set, 2, 5, world);
    ASSERT_EQ(int64_t(found.size()), sequences);
    for (int64_t s = 0; s < sequences; ++s) EXPECT_NEAR(found[size_t(s)], expected[s].item<double>(), 1e-5) << s;
    EXPECT_GT(found[0], 0.1);
}

TEST_F(HeldOut, the_number_of_ranks_changes_no_bit) {
    TeacherStates here(*teacher, 0), kept(*teacher, 1 << 20);
    const auto alone = held_out_kl(*student, here, set, 2, 5, Communicator());
    EXPECT_EQ(held_out_kl(*student, kept, set, 2, 5, world), alone);
    EXPECT_EQ(held_out_kl(*student, kept, set, 2, 5, world), alone) << "with the teacher's states kept";
}

TEST_F(HeldOut, single_tokens_are_measured_where_they_are_predicted) {
    TeacherStates states(*teacher, 0);
    const auto found = measure_tokens(*student, &states, set, 2, 5, world);
    const at::Tensor logits = student->logits(set.tokens).detach().to(at::kDouble);
    const at::Tensor log_p = at::log_softmax(logits, -1);
    ASSERT_EQ(int64_t(found.loss.size()), sequences * length);
    for (int64_t s = 0; s < sequences; ++s)
        for (int64_t t = 0; t < length; ++t) {
            const size_t at = size_t(s * length + t);
            if (t == length - 1) {
                EXPECT_EQ(found.loss[at], 0.0);
                EXPECT_EQ(found.correct[at], 0.0);
                continue;
            }
            const int64_t next = set.tokens[s][t + 1].item<int64_t>();
            EXPECT_NEAR(found.loss[at], -log_p[s][t][next].item<double>(), 1e-4);
            EXPECT_EQ(found.correct[at], logits[s][t].argmax().item<int64_t>() == next ? 1.0 : 0.0);
        }
    const auto kl = held_out_kl(*student, states, set, 2, 5, world);
    for (int64_t s = 0; s < sequences; ++s) {
        double sum = 0.0;
        for (int64_t t = 0; t < length; ++t) sum += found.kl[size_t(s * length + t)];
        EXPECT_NEAR(sum / double(length), kl[size_t(s)], 1e-6);
    }
    EXPECT_TRUE(measure_tokens(*teacher, nullptr, set, 2, 5, world).kl.empty());
}

TEST_F(HeldOut, documents_in_which_nothing_is_predicted_are_refused) {
    std::vector<int64_t> starts(size_t(2 * length));  // documents of one token, then one of the rest
    std::iota(starts.begin(), starts.end(), 1);
    test::write_tokens(folder / "short.h5", test::simple_text(8 * length, 61, 3), 61, {}, "none", starts);
    const TokenFile documents(folder / "short.h5");
    test::expect_error([&] { read_held_out(documents, 2, length, DocumentBorders::separate); }, ExitCode::bad_input,
                       {"data.validation", "first 2 sequences", "no token has a next one"});
    EXPECT_EQ(read_held_out(documents, 3, length, DocumentBorders::separate).sequences(), 3);
    EXPECT_EQ(read_held_out(documents, 2, length).sequences(), 2);
}

/// Of documents that are kept apart, as of the same documents in sequences of their own.
TEST_F(HeldOut, documents_are_measured_as_if_they_were_alone) {
    const std::vector<int64_t> starts = {1, 5, 8, 24, 30, 32, 60};
    test::write_tokens(folder / "documents.h5", test::simple_text(8 * length, 61, 3), 61, {0, 5, 12, 30, 31}, "none",
                       starts);
    const TokenFile documents(folder / "documents.h5");
    const HeldOutSet separate = read_held_out(documents, sequences, length, DocumentBorders::separate);
    EXPECT_EQ(separate.borders[0], (std::vector<int64_t>{1, 5, 8}));
    EXPECT_TRUE(separate.borders[1].empty());
    EXPECT_TRUE(separate.answers[0].empty()) << "5 begins a document: nothing predicts it";
    EXPECT_EQ(separate.answers[2], (std::vector<int64_t>{7})) << "30 begins one, 31 does not";
    EXPECT_TRUE(read_held_out(documents, sequences, length).borders.empty());

    TeacherStates states(*teacher, 0), of_documents(*teacher, 0);
    const auto found = measure_tokens(*student, &states, separate, 2, 5, world);
    const auto predicts = separate.predicts();
    const auto kl = held_out_kl(*student, states, separate, 2, 5, world);
    for (int64_t s = 0; s < sequences; ++s) {
        double sum = 0.0;
        for (int64_t t = 0; t < length; ++t) sum += found.kl[size_t(s * length + t)];
        EXPECT_NEAR(sum / double(length), kl[size_t(s)], 1e-6);
        std::vector<int64_t> ends = separate.borders[size_t(s)];
        ends.push_back(length);
        int64_t first = 0;
        for (const int64_t end : ends) {
            HeldOutSet one{separate.tokens.narrow(0, s, 1).narrow(1, first, end - first), {{}}, {}};
            const auto expected = measure_tokens(*student, &of_documents, one, 1, 5, Communicator());
            for (int64_t t = first; t < end; ++t) {
                const auto here = size_t(s * length + t), there = size_t(t - first);
                EXPECT_NEAR(found.loss[here], expected.loss[there], 1e-4);
                EXPECT_EQ(found.correct[here], expected.correct[there]);
                EXPECT_NEAR(found.kl[here], expected.kl[there], 1e-4);
                EXPECT_EQ(predicts[here], t + 1 < end);
            }
            first = end;
        }
    }
}

}  // namespace
}  // namespace amalgam
