// SPDX-License-Identifier: Apache-2.0
// Whole-model gradients of the objectives against autograd through all logits.
#include "objectives/distillation.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "../model/small_model.h"
#include "optimizer/gradients.h"

namespace amalgam {
namespace {

constexpr double weight = 0.3;

class DistillationTraining : public testing::Test {
  protected:
    void make(const std::string& family) {
        config = test::small_config(family);
        teacher = test::small_model({config, all_softmax(config.layers), {}}, 1);
        student = test::small_model({config, keep_softmax(config.layers, test::linear_mixer, {1}), {}}, 2, true);
        tokens = test::random_tokens(2, 20, config.vocabulary_size, 3);
    }

    void expect_gradients(Objective& objective, const at::Tensor& loss) {
        Gradients found(objective.trained(), test::device(), false);
        std::vector<double> losses(size_t(objective.losses()), 0.0);
        objective.accumulate(tokens, 0, weight, found, losses);
        EXPECT_NEAR(losses[0], weight * loss.item<double>(), 1e-6);
        std::vector<at::Tensor> leaves;
        for (const Parameter* p : objective.trained()) leaves.push_back(p->compute);
        const auto expected = torch::autograd::grad({loss * weight}, leaves);
        ASSERT_EQ(leaves.size(), student->parameters().all().size());
        for (size_t i = 0; i < leaves.size(); ++i) {
            const Parameter& p = *objective.trained()[i];
            EXPECT_LT(test::relative_error(found.of(p), expected[i]), 2e-5) << p.name;
        }
    }

    ModelConfig config;
    std::unique_ptr<CausalLM> teacher, student;
    at::Tensor tokens;
};

TEST_F(DistillationTraining, gradients_of_the_divergence) {
    for (const char* family : {"llama", "qwen3"}) {  // tied and own head
        SCOPED_TRACE(family);
        make(family);
        DistillJob job;
        job.temperature = 1.5;
        job.loss_chunk_tokens = 7;
        const at::Tensor log_t = at::log_softmax(teacher->logits(tokens) / 1.5, -1),
                         log_s = at::log_softmax(student->logits(tokens) / 1.5, -1);
        TeacherStates states(*teacher, 0);
        Distillation objective(*student, states, job);
        expect_gradients(objective, (log_t.exp() * (log_t - log_s)).sum(-1).mean() * 1.5 * 1.5);
    }
}

TEST_F(DistillationTraining, gradients_of_the_divergence_and_the_hidden_states) {
    make("llama");
    DistillJob job;
    job.hidden_state_weight = 0.7;
    const at::Tensor log_t = at::log_softmax(teacher->logits(tokens), -1),
                     log_s = at::log_softmax(student->logits(tokens), -1);
    const at::Tensor h_t = teacher->hidden(tokens).detach(), h_s = student->hidden(tokens);
    const at::Tensor distance = (h_t - h_s).square().sum(-1) / h_t.square().sum(-1);
    EXPECT_GT(distance.mean().item<double>(), 1e-3);
    TeacherStates states(*teacher, 0);
    Distillation objective(*student, states, job);
    expect_gradients(objective, (log_t.exp() * (log_t - log_s)).sum(-1).mean() + 0.7 * distance.mean());
}

TEST_F(DistillationTraining, gradients_of_the_next_token_loss) {
    for (const char* family : {"llama", "qwen3"}) {
        SCOPED_TRACE(family);
        make(family);
        const at::Tensor log_p = at::log_softmax(student->logits(tokens).narrow(1, 0, 19), -1);
        NextToken objective(*student, 7);
        expect_gradients(objective, -log_p.gather(2, tokens.narrow(1, 1, 19).unsqueeze(2)).mean());
    }
}

TEST(NextTokens, are_the_following_ones_and_none_after_the_last) {
    const at::Tensor tokens = at::arange(6, at::kLong).view({2, 3});
    EXPECT_TRUE(at::equal(next_tokens(tokens), at::tensor(std::vector<int64_t>{1, 2, -1, 4, 5, -1})));
}

TEST_F(DistillationTraining, teacher_states_are_kept_while_they_fit) {
    make("llama");
    const int64_t bytes = 2 * 20 * config.hidden_size * 4;
    TeacherStates states(*teacher, bytes);
    const at::Tensor first = states.hidden(tokens, 0), second = states.hidden(tokens, 2);
    EXPECT_EQ(states.hidden(tokens, 0).data_ptr(), first.data_ptr()) << "kept";
    EXPECT_NE(states.hidden(tokens, 2).data_ptr(), second.data_ptr()) << "no room for a second one";
    EXPECT_TRUE(at::equal(second, first));
    EXPECT_TRUE(at::equal(first, teacher->hidden(tokens).flatten(0, 1)));
}

TEST_F(DistillationTraining, teacher_states_of_a_step_are_shared_until_forgotten) {
    make("llama");
    TeacherStates states(*teacher, 0);
    states.keep_until_forgotten();
    for (int candidate = 0; candidate < 3; ++candidate)
        for (const int64_t cursor : {0, 2}) states.hidden(tokens, cursor);
    EXPECT_EQ(states.computed(), 2);
    states.forget();
    states.hidden(tokens, 0);
    EXPECT_EQ(states.computed(), 3);
}

}  // namespace
}  // namespace amalgam
