// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/gated_delta_rule.h"

#include "../operations/gradient_check.h"

namespace amalgam {
namespace {

using test::Inputs;
using test::normal_numbers;
using test::relative_error;

/// Token by token: S <- exp(g) S; r = beta (v - S^T k); S <- S + k r^T; o = S^T q.
at::Tensor recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                      const at::Tensor& beta, at::Tensor& state) {
    std::vector<at::Tensor> outputs;
    const auto read = [&](const at::Tensor& vector) { return at::matmul(vector.unsqueeze(-2), state).squeeze(-2); };
    for (int64_t t = 0; t < q.size(1); ++t) {
        state = state * g.select(1, t).exp().unsqueeze(-1).unsqueeze(-1);
        const at::Tensor key = k.select(1, t);
        const at::Tensor r = beta.select(1, t).unsqueeze(-1) * (v.select(1, t) - read(key));
        state = state + key.unsqueeze(-1) * r.unsqueeze(-2);
        outputs.push_back(read(q.select(1, t)));
    }
    return at::stack(outputs, 1);
}

/// q, k, v, g, beta of a gated delta net from random numbers, fp64.
struct RuleInputs {
    at::Tensor q, k, v, g, beta;
    RuleInputs(int64_t batch, int64_t time, int64_t heads, int64_t key_dim, int64_t value_dim, double decay = 0.1) {
        auto unit = [](const at::Tensor& t) { return t / t.norm(2, -1, true); };
        q = unit(normal_numbers({batch, time, heads, key_dim}, 1).to(at::kDouble)) / std::sqrt(double(key_dim));
        k = unit(normal_numbers({batch, time, heads, key_dim}, 2).to(at::kDouble));
        v = normal_numbers({batch, time, heads, value_dim}, 3).to(at::kDouble);
        g = -decay * normal_numbers({batch, time, heads}, 4).to(at::kDouble).square();
        beta = at::sigmoid(normal_numbers({batch, time, heads}, 5).to(at::kDouble));
    }
};

TEST(GatedDeltaRuleChunked, is_the_recurrence) {
    for (const int64_t time : {1, 2, 63, 64, 65, 150}) {
        const RuleInputs in(2, time, 3, 5, 7);
        at::Tensor none, state = at::zeros({2, 3, 5, 7}, test::on_device(at::kDouble));
        const at::Tensor found = gated_delta_rule_chunked(in.q, in.k, in.v, in.g, in.beta, none);
        EXPECT_LT(relative_error(found, recurrence(in.q, in.k, in.v, in.g, in.beta, state)), 1e-12) << time;
        EXPECT_FALSE(none.defined());
    }
}

TEST(GatedDeltaRuleChunked, continues_from_a_state) {
    const RuleInputs in(2, 100, 3, 5, 7);
    const at::Tensor start = normal_numbers({2, 3, 5, 7}, 6).to(at::kDouble);
    at::Tensor found_state = start.clone(), state = start.clone();
    const at::Tensor found = gated_delta_rule_chunked(in.q, in.k, in.v, in.g, in.beta, found_state);
    EXPECT_LT(relative_error(found, recurrence(in.q, in.k, in.v, in.g, in.beta, state)), 1e-12);
    EXPECT_LT(relative_error(found_state, state), 1e-6);  // states are kept in fp32
}

TEST(GatedDeltaRuleChunked, strong_decay_neither_overflows_nor_loses_the_present) {
    const RuleInputs in(1, 130, 2, 4, 4, 60.0);
    at::Tensor none, state = at::zeros({1, 2, 4, 4}, test::on_device(at::kDouble));
    const at::Tensor found = gated_delta_rule_chunked(in.q, in.k, in.v, in.g, in.beta, none);
    EXPECT_TRUE(found.isfinite().all().item<bool>());
    EXPECT_LT(relative_error(found, recurrence(in.q, in.k, in.v, in.g, in.beta, state)), 1e-10);
}

TEST(GatedDeltaRuleChunked, gradients_are_the_recurrences) {
    const RuleInputs in(1, 70, 2, 4, 6);
    const auto chunked = [](const Inputs& x) {
        at::Tensor none;
        return gated_delta_rule_chunked(x[0], x[1], x[2], x[3], x[4], none);
    };
    const auto naive = [](const Inputs& x) {
        at::Tensor state = at::zeros({1, 2, 4, 6}, test::on_device(at::kDouble));
        return recurrence(x[0], x[1], x[2], x[3], x[4], state);
    };
    const Inputs inputs = {in.q, in.k, in.v, in.g, in.beta};
    const auto found = test::differentiate(chunked, inputs, at::kDouble),
               expected = test::differentiate(naive, inputs, at::kDouble);
    for (size_t i = 0; i < inputs.size(); ++i)
        EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), 1e-11) << "input " << i;
}

/// The whole operation from the fused projection.
struct MixingCase {
    GatedDeltaShape shape;
    Inputs inputs;  // projected, a_log, dt_bias, norm
    MixingCase(bool gate, bool norm, bool activation, int64_t time, int64_t head_dim = 8)
        : shape{3, head_dim, gate, activation, 1e-5},
          inputs{normal_numbers({2, time, shape.columns()}, 1), 0.5 * normal_numbers({3}, 2),
                 0.5 * normal_numbers({3}, 3) - 2.0, norm ? 1.0 + 0.3 * normal_numbers({head_dim}, 4) : at::Tensor()} {}
    at::Tensor run(const Inputs& in) const { return gated_delta_mixing(in[0], in[1], in[2], in[3], shape, nullptr); }
};

TEST(GatedDeltaMixing, is_the_formula) {
    const MixingCase c(true, true, true, 90);
    Inputs in;
    for (const at::Tensor& t : c.inputs) in.push_back(t.to(at::kDouble));
    const auto parts = at::split_with_sizes(in[0], {24, 24, 24, 24, 3, 3}, -1);
    auto heads = [&](int i) { return at::silu(parts[size_t(i)].unflatten(-1, {3, 8})); };
    auto unit = [](const at::Tensor& t) { return t / at::sqrt(t.square().sum(-1, true) + 1e-6); };
    at::Tensor state = at::zeros({2, 3, 8, 8}, test::on_device(at::kDouble));
    const at::Tensor g = -in[1].exp() * at::log1p((parts[4] + in[2]).exp());
    const at::Tensor o =
        recurrence(unit(heads(0)) / std::sqrt(8.0), unit(heads(1)), heads(2), g, at::sigmoid(parts[5]), state);
    const at::Tensor normed = (o / at::sqrt(o.square().mean(-1, true) + 1e-5) * in[3]).flatten(-2);
    const at::Tensor expected = normed * at::silu(parts[3]);
    EXPECT_LT(relative_error(c.run(in), expected), 1e-12) << "LibTorch operations in fp64";
    EXPECT_LT(relative_error(c.run(c.inputs), expected), 5e-6) << "CPU kernels in fp32";
    Inputs narrow = c.inputs;
    narrow[0] = narrow[0].to(at::kBFloat16);
    EXPECT_LT(relative_error(c.run(narrow), expected), 3e-2) << "CPU kernels in bfloat16";
}

TEST(GatedDeltaMixing, gradients_of_everything_agree_with_autograd_in_fp64) {
    for (const bool gate : {false, true})
        for (const bool norm : {false, true})
            for (const bool activation : {false, true}) {
                SCOPED_TRACE(testing::Message() << "gate " << gate << " norm " << norm << " activation " << activation);
                const MixingCase c(gate, norm, activation, 90);
                test::expect_fp64_gradients([&](const Inputs& in) { return c.run(in); }, c.inputs, 2e-5);
            }
}

TEST(GatedDeltaMixing, gradients_at_any_length) {
    for (const int64_t time : {2, 64, 129}) {  // a single token has no past: its decay has no gradient
        SCOPED_TRACE(testing::Message() << "time " << time);
        const MixingCase c(true, true, true, time);
        test::expect_fp64_gradients([&](const Inputs& in) { return c.run(in); }, c.inputs, 2e-5);
    }
}

/// Head dimensions that the fast kernels do not take.
TEST(GatedDeltaMixing, gradients_of_odd_head_dimensions) {
    const MixingCase c(true, true, true, 70, 6);
    test::expect_fp64_gradients([&](const Inputs& in) { return c.run(in); }, c.inputs, 2e-5);
}

/// The dimensions and the type that GPUs have kernels for.
TEST(GatedDeltaMixing, heads_of_64_and_128_in_bfloat16) {
    for (const int64_t head_dim : {64, 128})
        for (const bool gate : {false, true})
            for (const bool norm : {false, true})
                for (const bool activation : {false, true}) {
                    SCOPED_TRACE(testing::Message() << "heads of " << head_dim << " gate " << gate << " norm " << norm
                                                    << " activation " << activation);
                    const MixingCase c(gate, norm, activation, 150, head_dim);
                    Inputs inputs;
                    for (const at::Tensor& t : c.inputs) inputs.push_back(t.defined() ? t.to(at::kBFloat16) : t);
                    const auto narrow = [&](const Inputs& in) {
                        const auto wide = [](const at::Tensor& t) { return t.defined() ? t.to(at::kFloat) : t; };
                        return c.run({in[0], wide(in[1]), wide(in[2]), wide(in[3])});
                    };
                    const auto exact = [&](const Inputs& in) { return c.run(in); };
                    const auto found = test::differentiate(narrow, inputs, at::kBFloat16),
                               expected = test::differentiate(exact, inputs, at::kDouble);
                    EXPECT_LT(relative_error(found.value, expected.value), 2e-2);
                    for (size_t i = 0; i < expected.gradients.size(); ++i)
                        EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), 3e-2) << "input " << i;
                }
}

/// Generation in pieces and token by token is the whole sequence at once.
TEST(GatedDeltaMixing, continues_from_a_state_in_bfloat16) {
    for (const int64_t head_dim : {64, 128}) {
        const MixingCase c(true, true, true, 90, head_dim);
        const at::Tensor projected = c.inputs[0].to(at::kBFloat16);
        const auto run = [&](int64_t first, int64_t count, at::Tensor* state) {
            return gated_delta_mixing(projected.narrow(1, first, count), c.inputs[1], c.inputs[2], c.inputs[3], c.shape,
                                      state);
        };
        const at::Tensor whole = run(0, 90, nullptr);
        at::Tensor state = at::zeros({2, 3, head_dim, head_dim}, test::on_device(at::kFloat));
        std::vector<at::Tensor> parts = {run(0, 70, &state)};
        for (int64_t t = 70; t < 90; ++t) parts.push_back(run(t, 1, &state));
        EXPECT_LT(relative_error(at::cat(parts, 1), whole), 1e-2) << "heads of " << head_dim;
    }
}

TEST(GatedDeltaMixing, continues_from_a_state) {
    const MixingCase c(true, true, true, 90);
    const at::Tensor whole = c.run(c.inputs);
    for (const int64_t split : {1, 50, 64, 89}) {
        at::Tensor state = at::zeros({2, 3, 8, 8}, test::on_device(at::kFloat));
        auto part = [&](int64_t first, int64_t count) {
            return gated_delta_mixing(c.inputs[0].narrow(1, first, count), c.inputs[1], c.inputs[2], c.inputs[3],
                                      c.shape, &state);
        };
        const at::Tensor first = part(0, split), second = part(split, 90 - split);
        EXPECT_LT(relative_error(at::cat({first, second}, 1), whole), 5e-6) << "split at " << split;
    }
}

}  // namespace
}  // namespace amalgam
