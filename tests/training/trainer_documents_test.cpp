// SPDX-License-Identifier: Apache-2.0
// Training on documents that are kept apart.
#include "small_training.h"

namespace amalgam {
namespace {

class SeparateDocuments : public test::TrainingTest {
  protected:
    void SetUp() override {
        TrainingTest::SetUp();
        if (world.is_root())
            test::write_tokens(shared / "documents.h5", test::simple_text(40 * length, vocabulary, 1), vocabulary, {},
                               "none", test::document_borders(40 * length, 9, 1));
        world.barrier();
        file = std::make_unique<TokenFile>(shared / "documents.h5");
        make_batches();
    }
    void make_batches() { batches = std::make_unique<Batches>(*file, plan, 5, "distill", DocumentBorders::separate); }

    std::vector<double> next_token_losses(const Communicator& group, bool deterministic = false) {
        const auto student = new_student();
        NextToken objective(*student, 20);
        return train(*student, objective, plan, *batches, group, setup(deterministic)).step_losses;
    }

    static void expect_near(const std::vector<double>& found, const std::vector<double>& expected) {
        ASSERT_EQ(found.size(), expected.size());
        for (size_t s = 0; s < found.size(); ++s) EXPECT_NEAR(found[s] / expected[s], 1.0, 1e-4) << "step " << s;
    }
};

/// The loss of a step is the mean over all tokens of the batch that have a next one, each predicted from its document.
TEST_F(SeparateDocuments, loss_of_the_next_token) {
    const auto student = new_student();
    const at::Tensor tokens = batches->sequences(0, batch);
    const Borders borders = batches->borders(0, batch);
    double sum = 0.0;
    int64_t predictions = 0;
    for (int64_t s = 0; s < batch; ++s) {
        std::vector<int64_t> ends = borders[size_t(s)];
        ends.push_back(length);
        int64_t first = 0;
        for (const int64_t end : ends) {
            const at::Tensor document = tokens.narrow(0, s, 1).narrow(1, first, end - first);
            const at::Tensor log_p = at::log_softmax(student->logits(document).detach().to(at::kDouble), -1)[0];
            for (int64_t t = 0; t + 1 < end - first; ++t, ++predictions)
                sum -= log_p[t][document[0][t + 1].item<int64_t>()].item<double>();
            first = end;
        }
    }
    EXPECT_LT(predictions, batch * (length - 1) - 3);
    EXPECT_NEAR(next_token_losses(world).front(), sum / double(predictions), 1e-5);
}

/// Micro-batches hold unequally many predictions; each counts by its share of the whole batch's.
TEST_F(SeparateDocuments, losses_do_not_depend_on_how_the_batch_is_cut) {
    const auto expected = next_token_losses(Communicator());
    expect_near(next_token_losses(world), expected);
    plan.micro_batch_sequences = 1;
    make_batches();
    expect_near(next_token_losses(Communicator()), expected);
    EXPECT_EQ(next_token_losses(world, true), next_token_losses(Communicator(), true));
}

TEST_F(SeparateDocuments, distillation_is_another_one_than_on_joined_documents) {
    const auto student = new_student(), of_joined = new_student();
    const auto separate = run(*student, world, setup(false)).step_losses;
    batches = std::make_unique<Batches>(*file, plan, 5, "distill");
    const auto joined = run(*of_joined, world, setup(false)).step_losses;
    ASSERT_EQ(separate.size(), joined.size());
    EXPECT_GT(std::abs(separate[0] - joined[0]), 1e-3);
}

}  // namespace
}  // namespace amalgam
