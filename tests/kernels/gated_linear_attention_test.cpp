// SPDX-License-Identifier: Apache-2.0
// Gated linear attention on the CPU against the fp64 recurrence, and the recurrence's adjoint against differences.
#include <gtest/gtest.h>

#include "gated_linear_attention_case.h"

namespace amalgam::kernels {
namespace {

GatedLinearAttentionCase make_case(ElementType type, GatedLinearAttentionShape shape) {
    GatedLinearAttentionCase c;
    c.shape = shape;
    c.options.element_type = type;
    return c;
}

void expect_near_reference(GatedLinearAttentionCase c, double accepted) {
    c.fill();
    const NamedValues reference = c.run_reference(), results = c.run(1);
    EXPECT_EQ(results.size(), reference.size() - (c.with_states ? 0 : 1));
    for (const auto& [name, values] : results) {
        ASSERT_EQ(values.size(), reference.at(name).size()) << name;
        EXPECT_LE(relative_error(values, reference.at(name)), accepted) << name;
    }
}

TEST(GatedLinearAttention, matches_the_recurrence_in_float) {
    for (int64_t time : {1, 2, 31, 32, 33, 64, 100}) {
        for (const auto& [key, value] : {std::pair{64, 64}, {32, 32}, {17, 5}, {8, 40}})
            expect_near_reference(make_case(ElementType::float32, {2, time, 2, key, value}), 2e-6);
    }
}

TEST(GatedLinearAttention, matches_the_recurrence_in_bfloat16) {
    for (int64_t time : {1, 33, 200}) {
        // All that is rounded are the results: 2^-9 at most, half of that in the mean.
        for (bool states : {false, true}) {
            GatedLinearAttentionCase c = make_case(ElementType::bfloat16, {2, time, 2, 64, 64});
            c.with_states = states;
            expect_near_reference(c, 0.0025);
        }
    }
}

TEST(GatedLinearAttention, any_gate_matches_the_recurrence) {
    for (float shift : {60.0F, 4.0F, -20.0F, -480.0F}) {
        for (float normalizer : {16.0F, 1.0F}) {
            GatedLinearAttentionCase c = make_case(ElementType::float32, {1, 70, 2, 32, 32});
            c.gate_shift = shift;
            c.options.gate_logit_normalizer = normalizer;
            c.options.scale = 0.3F;
            c.fill();
            const NamedValues reference = c.run_reference(), results = c.run(1);
            for (const auto& [name, values] : results) {
                // Decays of e^-480 are zero here, and a gradient of 1e-200 too.
                if (root_mean_square(reference.at(name)) < 1e-30)
                    EXPECT_LE(root_mean_square(values), 1e-30) << name;
                else
                    EXPECT_LE(relative_error(values, reference.at(name)), 1e-5) << name << " at " << shift;
            }
        }
    }
}

TEST(GatedLinearAttention, decoding_in_slots_repeats_the_whole_sequence) {
    for (ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        GatedLinearAttentionCase c = make_case(type, {3, 6, 2, 24, 40});
        c.fill();
        const NamedValues reference = c.run_reference();
        const int64_t size = 24 * 40, per_slot = c.shape.heads * size;
        const std::vector<int32_t> slot = {2, 4, 0}, nobody = {-1, -1, -1};
        std::vector<float> states(5 * per_slot, 7.0F);
        for (int64_t b = 0; b < 3; ++b)
            std::copy_n(c.initial_state.begin() + b * per_slot, per_slot, states.begin() + slot[b] * per_slot);
        GatedLinearAttentionShape one = c.shape;
        one.time = 1;
        std::vector<double> o(reference.at("o").size());
        for (int64_t t = 0; t < c.shape.time; ++t) {
            Activations out(type, 3 * c.value_width());
            const int64_t tokens = c.shape.time;  // between the rows of a step
            GatedLinearAttentionInputs in{{c.fused.at(t * c.stride()), tokens * c.stride()},
                                          {c.fused.at(t * c.stride() + c.width()), tokens * c.stride()},
                                          {c.fused.at(t * c.stride() + 2 * c.width()), tokens * c.stride()},
                                          {c.gate.at(t * c.width()), tokens * c.width()}};
            in.slot = nobody.data();
            gated_linear_attention_decode(one, c.options, in, states.data(), out.at(0), 2);  // leaves all alone
            in.slot = slot.data();
            gated_linear_attention_decode(one, c.options, in, states.data(), out.at(0), 2);
            for (int64_t chain = 0; chain < 6; ++chain)
                for (int64_t i = 0; i < 40; ++i) o[(chain * tokens + t) * 40 + i] = out.get(chain * 40 + i);
        }
        EXPECT_LE(relative_error(o, reference.at("o")), type == ElementType::float32 ? 1e-5 : 5e-3);
        std::vector<double> final_state;
        for (int64_t b = 0; b < 3; ++b)
            final_state.insert(final_state.end(), states.begin() + slot[b] * per_slot,
                               states.begin() + (slot[b] + 1) * per_slot);
        EXPECT_LE(relative_error(final_state, reference.at("final_state")), 1e-5);
        for (const int64_t other : {1, 3})
            for (int64_t i = 0; i < per_slot; ++i) ASSERT_EQ(states[other * per_slot + i], 7.0F);
    }
}

TEST(GatedLinearAttention, threads_do_not_change_a_bit) {
    GatedLinearAttentionCase c = make_case(ElementType::float32, {3, 70, 3, 32, 32});
    c.fill();
    EXPECT_EQ(c.run(1), c.run(4));
}

/// A negative control: these comparisons notice one wrong element.
TEST(GatedLinearAttention, a_wrong_element_is_noticed) {
    GatedLinearAttentionCase c = make_case(ElementType::float32, {1, 40, 1, 32, 32});
    c.fill();
    const NamedValues right = c.run_reference();
    c.gate.set(20 * c.width() + 3, -30.0F);
    EXPECT_GT(relative_error(c.run(1).at("o"), right.at("o")), 1e-3);
}

TEST(GatedLinearAttention, refuses_what_it_cannot_run) {
    GatedLinearAttentionCase c = make_case(ElementType::float32, {1, 4, 1, 8, 8});
    EXPECT_THROW(gated_linear_attention_forward(c.shape, c.options, {}, {}, 1), std::invalid_argument);
    c.fill();
    c.options.gate_logit_normalizer = 0;
    EXPECT_THROW(c.run(1), std::invalid_argument);
}

/// The derivative of <o, d_o> + <final state, d_final> by each input.
TEST(GatedLinearAttentionReference, adjoint_matches_differences) {
    std::mt19937 random(1);
    std::normal_distribution<double> normal;
    const auto draw = [&](int64_t size) {
        std::vector<double> x(size);
        for (double& value : x) value = normal(random);
        return x;
    };
    GatedLinearAttentionSequence s;
    s.time = 5, s.key_dim = 3, s.value_dim = 2, s.scale = 0.7, s.gate_logit_normalizer = 2;
    s.q = draw(15), s.k = draw(15), s.v = draw(10), s.gate = draw(15), s.initial_state = draw(6);
    const std::vector<double> d_o = draw(10), d_final = draw(6);
    const auto loss = [&] {
        const auto result = gated_linear_attention_reference(s);
        double sum = 0;
        for (size_t i = 0; i < d_o.size(); ++i) sum += result.o[i] * d_o[i];
        for (size_t i = 0; i < d_final.size(); ++i) sum += result.final_state[i] * d_final[i];
        return sum;
    };
    const auto gradients = gated_linear_attention_reference_backward(s, d_o, d_final);
    const auto expect_differences = [&](std::vector<double>& x, const std::vector<double>& gradient) {
        ASSERT_EQ(x.size(), gradient.size());
        for (size_t i = 0; i < x.size(); ++i) {
            const double kept = x[i], step = 1e-5;
            x[i] = kept + step;
            const double above = loss();
            x[i] = kept - step;
            const double below = loss();
            x[i] = kept;
            EXPECT_NEAR(gradient[i], (above - below) / (2 * step), 1e-8 * (1 + std::abs(gradient[i])));
        }
    };
    expect_differences(s.q, gradients.q);
    expect_differences(s.k, gradients.k);
    expect_differences(s.v, gradients.v);
    expect_differences(s.gate, gradients.gate);
    expect_differences(s.initial_state, gradients.initial_state);
}

}  // namespace
}  // namespace amalgam::kernels
