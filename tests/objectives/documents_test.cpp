// SPDX-License-Identifier: Apache-2.0
// What is trained on sequences of documents that are kept apart, against the documents alone: losses, and gradients of
// all parameters of a student of every mixer.
#include "mixers/documents.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"
#include "objectives/alignment.h"
#include "objectives/distillation.h"
#include "optimizer/gradients.h"

namespace amalgam {
namespace {

constexpr int64_t length = 150, vocabulary = 61;
const Borders borders = {{1, 40, 64, 66}, {100}};

class TrainingOnDocuments : public testing::Test {
  protected:
    using MakeObjective = std::function<std::unique_ptr<Objective>(CausalLM& student)>;

    struct Sums {
        std::vector<double> losses;
        at::Tensor gradients;
    };

    std::unique_ptr<CausalLM> new_student() const {
        return test::small_model({config,
                                  {"gated_delta_net", softmax_mixer, "kimi_delta_attention", "gated_linear_attention"},
                                  {{"short_convolution", true}}},
                                 2, true);
    }

    /// The sum over batches, each weighted by its part of all tokens that have a loss.
    Sums accumulate(const std::vector<TokenBatch>& batches, const MakeObjective& make) const {
        const auto student = new_student();
        const auto objective = make(*student);
        Gradients gradients(objective->trained(), test::device(), false);
        Sums sums;
        sums.losses.assign(size_t(objective->losses()), 0.0);
        const auto counted = [&](const TokenBatch& batch) {
            return double(objective->counted(batch.tokens.numel(), batch.texts()));
        };
        double all = 0.0;
        for (const TokenBatch& batch : batches) all += counted(batch);
        int64_t cursor = 0;
        for (const TokenBatch& batch : batches)
            objective->accumulate(batch, cursor++, 0.7 * counted(batch) / all, gradients, sums.losses);
        sums.gradients = gradients.flat().clone();
        return sums;
    }

    std::vector<TokenBatch> alone() const {
        std::vector<TokenBatch> all;
        const Documents documents(borders, length, test::device());
        int64_t first = 0;
        for (const int64_t count : documents.lengths()) {
            all.emplace_back(tokens.flatten().narrow(0, first, count).unsqueeze(0));
            first += count;
        }
        return all;
    }

    void expect_those_of_documents(const MakeObjective& make) const {
        const Sums expected = accumulate(alone(), make), found = accumulate({{tokens, borders}}, make),
                   joined = accumulate({tokens}, make);
        EXPECT_LT(test::relative_error(found.gradients, expected.gradients), 2e-5);
        for (size_t i = 0; i < expected.losses.size(); ++i)
            EXPECT_NEAR(found.losses[i], expected.losses[i], 2e-5 * std::abs(expected.losses[i])) << i;
        EXPECT_GT(test::relative_error(joined.gradients, expected.gradients), 1e-2) << "the test sees borders";
    }

    const ModelConfig config = test::small_config("llama", 4);
    const std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(4), {}}, 1);
    const at::Tensor tokens = test::random_tokens(2, length, vocabulary, 3);
    DistillJob job;
};

TEST_F(TrainingOnDocuments, divergence) {
    job.hidden_state_weight = 0.1;
    TeacherStates states(*teacher, 0);
    expect_those_of_documents([&](CausalLM& student) { return std::make_unique<Distillation>(student, states, job); });
}

TEST_F(TrainingOnDocuments, next_token_loss) {
    expect_those_of_documents([&](CausalLM& student) { return std::make_unique<NextToken>(student, 20); });
}

TEST_F(TrainingOnDocuments, alignment) {
    for (const AlignmentLoss loss : {AlignmentLoss::norm, AlignmentLoss::relative})
        expect_those_of_documents(
            [&](CausalLM& student) { return std::make_unique<Alignment>(student, *teacher, loss); });
}

TEST_F(TrainingOnDocuments, computing_activations_again_changes_no_bit) {
    const auto with = [&](Activations activations) {
        return accumulate({{tokens, borders}},
                          [&](CausalLM& student) { return std::make_unique<NextToken>(student, 20, activations); });
    };
    const Sums kept = with(Activations::keep), again = with(Activations::recompute);
    EXPECT_EQ(again.losses, kept.losses);
    EXPECT_TRUE(at::equal(again.gradients, kept.gradients));
}

TEST(NextTokens, of_documents_end_with_them) {
    const TokenBatch batch(at::arange(10, at::kLong).view({2, 5}), Borders{{2}, {}});
    EXPECT_EQ(batch.texts(), 3);
    EXPECT_TRUE(at::equal(next_tokens(batch), at::tensor(std::vector<int64_t>{1, -1, 3, 4, -1, 6, 7, 8, 9, -1})));
    EXPECT_EQ(TokenBatch(batch.tokens, Borders{{}, {}}).documents, nullptr) << "every sequence is one text";
}

}  // namespace
}  // namespace amalgam
