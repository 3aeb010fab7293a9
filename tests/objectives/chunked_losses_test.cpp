// SPDX-License-Identifier: Apache-2.0
// Losses and gradients by chunks against log_softmax over everything at once, in fp64 with autograd.
#include "objectives/chunked_losses.h"

#include "../operations/gradient_check.h"

namespace amalgam {
namespace {

using test::normal_numbers;
using test::relative_error;

constexpr int64_t tokens = 17, width = 12, vocabulary = 61;
constexpr double weight = 0.37, tolerance = 2e-6;

struct Case {
    at::Tensor hidden = normal_numbers({tokens, width}, 1), head = normal_numbers({vocabulary, width}, 2);
    at::Tensor teacher_hidden = normal_numbers({tokens, 20}, 3), teacher_head = normal_numbers({vocabulary, 20}, 4);
    at::Tensor targets = (at::arange(tokens, test::on_device(at::kLong)) * 7 + 3).remainder(vocabulary);
    Case() { targets[4] = targets[16] = -1; }

    /// d_head starts from something: gradients are added to it.
    const at::Tensor start = normal_numbers({vocabulary, width}, 5);
};

struct Expected {
    at::Tensor loss, d_hidden, d_head;
};

Expected differentiate(const std::function<at::Tensor(const at::Tensor& logits)>& loss_of, const Case& c) {
    const at::Tensor hidden = c.hidden.to(at::kDouble).requires_grad_(true),
                     head = c.head.to(at::kDouble).requires_grad_(true);
    const at::Tensor per_token = loss_of(at::linear(hidden, head));
    const auto gradients = torch::autograd::grad({per_token.sum() * weight}, {hidden, head});
    return {per_token.detach(), gradients[0], gradients[1]};
}

Expected expected_kl(const Case& c, double temperature) {
    const at::Tensor teacher = at::linear(c.teacher_hidden.to(at::kDouble), c.teacher_head.to(at::kDouble));
    return differentiate(
        [&](const at::Tensor& logits) {
            const at::Tensor log_t = at::log_softmax(teacher / temperature, -1),
                             log_s = at::log_softmax(logits / temperature, -1);
            return (log_t.exp() * (log_t - log_s)).sum(-1) * temperature * temperature;
        },
        c);
}

Expected expected_cross_entropy(const Case& c) {
    return differentiate(
        [&](const at::Tensor& logits) {
            const at::Tensor log_p = at::log_softmax(logits, -1);
            const at::Tensor picked = log_p.gather(1, c.targets.clamp_min(0).unsqueeze(1)).squeeze(1);
            return -picked * c.targets.ge(0).to(at::kDouble);
        },
        c);
}

void expect_same(const LossAndGradient& found, const at::Tensor& d_head, const Expected& expected, const Case& c) {
    const double sum = expected.loss.sum().item<double>();
    EXPECT_NEAR(found.loss, sum, tolerance * sum);
    EXPECT_LT(relative_error(found.d_hidden, expected.d_hidden), tolerance);
    EXPECT_LT(relative_error(d_head - c.start, expected.d_head), tolerance);
}

TEST(ChunkedLosses, kl_divergence_for_any_chunk_and_temperature) {
    const Case c;
    for (const double temperature : {1.0, 2.5})
        for (const int64_t chunk : {1, 3, 16, 17, 1000}) {
            SCOPED_TRACE(testing::Message() << "temperature " << temperature << " chunk " << chunk);
            const at::Tensor d_head = c.start.clone();
            const auto found = chunked_kl_divergence(c.hidden, c.head, c.teacher_hidden, c.teacher_head, temperature,
                                                     weight, chunk, d_head);
            expect_same(found, d_head, expected_kl(c, temperature), c);
        }
}

TEST(ChunkedLosses, cross_entropy_for_any_chunk) {
    const Case c;
    for (const int64_t chunk : {1, 3, 16, 17, 1000}) {
        SCOPED_TRACE(testing::Message() << "chunk " << chunk);
        const at::Tensor d_head = c.start.clone();
        const auto found = chunked_cross_entropy(c.hidden, c.head, c.targets, weight, chunk, d_head);
        expect_same(found, d_head, expected_cross_entropy(c), c);
        EXPECT_EQ(found.d_hidden[4].abs().max().item<double>(), 0.0) << "a token without target";
    }
}

TEST(ChunkedLosses, the_head_need_not_be_trained) {
    const Case c;
    const auto kl = chunked_kl_divergence(c.hidden, c.head, c.teacher_hidden, c.teacher_head, 1.0, weight, 5, {});
    EXPECT_LT(relative_error(kl.d_hidden, expected_kl(c, 1.0).d_hidden), tolerance);
    const auto ce = chunked_cross_entropy(c.hidden, c.head, c.targets, weight, 5, {});
    EXPECT_LT(relative_error(ce.d_hidden, expected_cross_entropy(c).d_hidden), tolerance);
}

TEST(ChunkedLosses, values_of_single_tokens) {
    const Case c;
    for (const int64_t chunk : {1, 4, 17, 100}) {
        const at::Tensor kl = token_kl_divergence(c.hidden, c.head, c.teacher_hidden, c.teacher_head, chunk);
        EXPECT_LT(relative_error(kl, expected_kl(c, 1.0).loss), tolerance);
        const TokenLosses found = token_cross_entropy(c.hidden, c.head, c.targets, chunk);
        EXPECT_LT(relative_error(found.loss, expected_cross_entropy(c).loss), tolerance);
        const at::Tensor best = at::linear(c.hidden, c.head).argmax(-1);
        EXPECT_TRUE(at::equal(found.correct.to(at::kBool), best.eq(c.targets)));
    }
}

TEST(ChunkedLosses, right_predictions_are_counted) {
    Case c;
    c.targets = at::linear(c.hidden, c.head).argmax(-1);
    EXPECT_EQ(token_cross_entropy(c.hidden, c.head, c.targets, 5).correct.sum().item<int64_t>(), tokens);
}

TEST(ChunkedLosses, no_divergence_from_oneself) {
    const Case c;
    EXPECT_LT(token_kl_divergence(c.hidden, c.head, c.hidden, c.head, 5).abs().max().item<double>(), 1e-6);
    const auto kl = chunked_kl_divergence(c.hidden, c.head, c.hidden, c.head, 1.0, 1.0, 5, {});
    EXPECT_LT(kl.d_hidden.abs().max().item<double>(), 1e-5);
}

TEST(ChunkedLosses, bfloat16_stays_near) {
    const Case c;
    const auto narrow = [](const at::Tensor& t) { return t.to(at::kBFloat16); };
    const at::Tensor d_head = c.start.clone();
    const auto found = chunked_kl_divergence(narrow(c.hidden), narrow(c.head), narrow(c.teacher_hidden),
                                             narrow(c.teacher_head), 1.0, weight, 5, d_head);
    const Expected expected = expected_kl(c, 1.0);
    EXPECT_NEAR(found.loss, expected.loss.sum().item<double>(), 0.02 * found.loss);
    EXPECT_LT(relative_error(found.d_hidden, expected.d_hidden), 0.03);
    EXPECT_LT(relative_error(d_head - c.start, expected.d_head), 0.03);
}

}  // namespace
}  // namespace amalgam
