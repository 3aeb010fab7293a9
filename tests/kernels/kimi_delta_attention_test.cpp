// SPDX-License-Identifier: Apache-2.0
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "delta_rule_expectations.h"
#include "kimi_delta_attention_case.h"

namespace amalgam::kernels {
namespace {

/// Accepted RMS(error) / RMS(reference) per result. In bf16 every result, d A_log and d dt_bias apart, is itself
/// rounded to bf16 or computed from operands that are. d A_log is one number a head, the sum over all tokens and
/// channels of dg g, whose signs differ.
double accepted_error(const std::string& name, ElementType type) {
    if (name == "dA_log") return type == ElementType::float32 ? 1e-4 : 0.015;
    if (type == ElementType::float32) return 1e-5;
    if (name == "o" || name == "final_state") return 0.005;
    if (name == "dq" || name == "dk" || name == "dv" || name == "dinitial_state") return 0.006;
    return 0.008;
}

std::string describe(const KimiDeltaAttentionCase& c) {
    return std::string(isa_name(c.options.isa)) + (c.options.element_type == ElementType::float32 ? " fp32" : " bf16") +
           " time " + std::to_string(c.shape.time) + " dims " + std::to_string(c.shape.key_dim) + " x " +
           std::to_string(c.shape.value_dim) + (c.options.silu ? " silu" : "") +
           (c.options.l2_normalize ? " normalised" : "") + " bound " + std::to_string(c.options.lower_bound) +
           " gates " + std::to_string(c.gate_shift) + " +- " + std::to_string(c.gate_spread);
}

class KimiDeltaAttentionVariants : public testing::Test {
  protected:
    static void check(const KimiDeltaAttentionCase& c) { expect_close_in_all_variants(c, accepted_error, describe); }
};

class KimiDeltaAttentionOnCpus : public testing::TestWithParam<Isa> {};

TEST_F(KimiDeltaAttentionVariants, any_length_matches_recurrence) {
    for (int64_t time : {1, 2, 15, 16, 17, 33, 63, 64, 65, 130, 200}) {
        KimiDeltaAttentionCase c;
        c.shape = {2, time, 2, 64, 64};
        c.options.silu = true;
        check(c);
    }
}

TEST_F(KimiDeltaAttentionVariants, any_dimension_matches_recurrence) {
    for (const auto& [key, value] :
         {std::pair{8, 8}, {16, 16}, {24, 40}, {32, 32}, {64, 128}, {128, 64}, {128, 128}, {13, 6}, {256, 48}}) {
        KimiDeltaAttentionCase c;
        c.shape = {1, 90, 2, key, value};
        c.options.silu = true;
        check(c);
    }
}

TEST_F(KimiDeltaAttentionVariants, packed_sequences_match_recurrence) {
    for (const std::vector<int64_t>& lengths :
         std::vector<std::vector<int64_t>>{{5}, {64, 64}, {63, 1, 65, 0, 200}, {0, 0, 7, 0}, {300, 20, 129, 64, 77}})
        for (const int64_t dim : {64, 13}) {  // by a kernel and by the recurrence
            KimiDeltaAttentionCase c;
            c.shape = {1, 1, 3, dim, dim};
            c.options.silu = true;
            c.pack(lengths);
            check(c);
        }
}

TEST_F(KimiDeltaAttentionVariants, options_match_recurrence) {
    for (bool silu : {false, true})
        for (bool normalize : {false, true})
            for (bool states : {false, true})
                for (float bound : {0.0F, -5.0F}) {
                    KimiDeltaAttentionCase c;
                    c.shape = {1, 100, 3, 32, 32};
                    c.options.silu = silu;
                    c.options.l2_normalize = normalize;
                    c.options.scale = 0.3F;
                    c.options.lower_bound = bound;
                    c.with_states = states;
                    check(c);
                }
}

/// Shifts: next to no decay, weak, mean, strong; a spread of 40: channels that forget at once beside those that keep
/// all.
TEST_F(KimiDeltaAttentionVariants, weak_strong_and_mixed_gates_match_recurrence) {
    for (const float bound : {0.0F, -5.0F})
        for (const auto& [shift, spread] :
             {std::pair{-40.0, 1.0}, {-8.0, 1.0}, {0.0, 1.0}, {3.0, 1.0}, {0.0, 5.0}, {0.0, 40.0}}) {
            KimiDeltaAttentionCase c;
            c.shape = {1, 150, 2, 64, 64};
            c.options.lower_bound = bound;
            c.gate_shift = shift;
            c.gate_spread = spread;
            check(c);
        }
}

/// With all log decays near -30, or at the bound.
TEST_F(KimiDeltaAttentionVariants, strongest_gates_stay_finite) {
    for (const float bound : {0.0F, -5.0F}) {
        KimiDeltaAttentionCase c;
        c.shape = {2, 130, 6, 64, 64};
        c.gate_shift = 100;
        c.options.lower_bound = bound;
        expect_finite_in_all_variants(c, accepted_error, describe);
    }
}

/// One decay for all channels of a head: the gated delta rule.
TEST_P(KimiDeltaAttentionOnCpus, equal_decays_are_the_gated_delta_rule) {
    for (ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        KimiDeltaAttentionCase c;
        GatedDeltaRuleCase shared;
        c.shape = shared.shape = {2, 130, 2, 64, 64};
        c.options.element_type = shared.options.element_type = type;
        c.fill();
        shared.fill();
        shared.A_log = c.A_log;
        shared.initial_state = c.initial_state;
        shared.final_state_gradient = c.final_state_gradient;
        shared.output_gradient = c.output_gradient;
        const int64_t dim = c.shape.key_dim;
        for (int64_t h = 0; h < c.shape.heads; ++h) {
            for (int64_t i = 0; i < dim; ++i) c.dt_bias[h * dim + i] = shared.dt_bias[h];
        }
        for (int64_t t = 0; t < c.shape.batch * c.shape.time; ++t) {
            for (const char part : {'q', 'k', 'v', 'b'}) {
                for (int64_t i = 0; i < c.shape.heads * c.width(part); ++i) {
                    shared.fused.set(t * shared.token_width() + shared.offset(part) + i,
                                     c.fused.get(t * c.token_width() + c.offset(part) + i));
                }
            }
            for (int64_t i = 0; i < c.shape.heads * dim; ++i) {
                c.fused.set(t * c.token_width() + c.offset('a') + i,
                            shared.fused.get(t * shared.token_width() + shared.offset('a') + i / dim));
            }
        }
        NamedValues found = c.run(GetParam(), 1), expected = shared.run(GetParam(), 1);
        // What channels of a head got is the head's together.
        for (const char* name : {"da", "ddt_bias"}) {
            std::vector<double> sums(found.at(name).size() / dim);
            for (size_t i = 0; i < found.at(name).size(); ++i) sums[i / dim] += found.at(name)[i];
            found[name] = sums;
        }
        for (const auto& [name, values] : found)
            EXPECT_LE(relative_error(values, expected.at(name)), 2 * accepted_error(name, type)) << name;
    }
}

TEST_P(KimiDeltaAttentionOnCpus, threads_and_repetition_do_not_change_a_bit) {
    for (ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        KimiDeltaAttentionCase c;
        c.shape = {3, 100, 3, 64, 64};
        c.options.element_type = type;
        c.options.silu = true;
        c.fill();
        const NamedValues once = c.run(GetParam(), 1);
        EXPECT_EQ(once, c.run(GetParam(), 2));
        EXPECT_EQ(once, c.run(GetParam(), 5));
        EXPECT_EQ(once, c.run(GetParam(), 1));
        c.fused.set(0, c.fused.get(0) + 1.0F);
        EXPECT_NE(once, c.run(GetParam(), 1)) << "a changed input shows";
    }
}

TEST_P(KimiDeltaAttentionOnCpus, gradients_leave_the_rest_of_the_fused_buffer_alone) {
    KimiDeltaAttentionCase c;
    c.shape = {1, 70, 2, 24, 40};
    c.fill();
    Activations gradient(c.options.element_type, c.shape.time * c.token_width());
    Activations o(c.options.element_type, c.shape.time * c.shape.heads * c.shape.value_dim);
    std::vector<float> d_A_log(2), d_dt_bias(2 * 24);
    c.options.isa = GetParam();
    std::vector<unsigned char> workspace(kimi_delta_attention_workspace_bytes(c.shape, c.options) + 64);
    kimi_delta_attention_forward(c.shape, c.options, c.inputs(), {o.at(0), nullptr}, workspace.data());
    const auto view = [&](char part) { return Rows{gradient.at(c.offset(part)), c.token_width()}; };
    kimi_delta_attention_backward(
        c.shape, c.options, c.inputs(), c.output_gradient.at(0), nullptr, workspace.data(),
        {view('q'), view('k'), view('v'), view('a'), view('b'), d_A_log.data(), d_dt_bias.data(), nullptr});
    const int64_t used = c.token_width() - 3;
    for (int64_t i = 0; i < c.shape.time * c.token_width(); ++i)
        ASSERT_EQ(std::isnan(gradient.get(i)), i % c.token_width() >= used) << i;
}

TEST_P(KimiDeltaAttentionOnCpus, decoding_token_by_token_equals_the_chunk_form) {
    for (const auto& [key, value] : {std::pair{64, 64}, {24, 40}, {128, 128}, {7, 5}})
        for (ElementType type : {ElementType::float32, ElementType::bfloat16})
            for (const float bound : {0.0F, -5.0F}) {
                KimiDeltaAttentionCase c;
                c.shape = {2, 70, 3, key, value};
                c.options.element_type = type;
                c.options.silu = true;
                c.options.lower_bound = bound;
                c.options.isa = GetParam();
                c.fill();
                const NamedValues reference = c.run_reference();
                SCOPED_TRACE(describe(c));
                std::vector<float> state = c.initial_state;
                std::vector<double> outputs(reference.at("o").size());
                const GatedDeltaRuleShape one = {1, 1, 3, key, value};
                Activations o(type, one.heads * value);
                for (int64_t token = 0; token < c.shape.batch * c.shape.time; ++token) {
                    const int64_t sequence = token / c.shape.time, t = token % c.shape.time;
                    GatedDeltaRuleInputs inputs = c.inputs();
                    for (auto& [rows, part] : {std::pair{&inputs.q, 'q'},
                                               {&inputs.k, 'k'},
                                               {&inputs.v, 'v'},
                                               {&inputs.a, 'a'},
                                               {&inputs.b, 'b'}})
                        rows->data = c.fused.at(token * c.token_width() + c.offset(part));
                    kimi_delta_attention_decode(one, c.options, inputs,
                                                state.data() + sequence * one.heads * key * value, o.at(0));
                    for (int64_t h = 0; h < one.heads; ++h)
                        for (int64_t i = 0; i < value; ++i)
                            outputs[((sequence * one.heads + h) * c.shape.time + t) * value + i] = o.get(h * value + i);
                }
                EXPECT_LE(relative_error(outputs, reference.at("o")), accepted_error("o", type));
                EXPECT_LE(relative_error({state.begin(), state.end()}, reference.at("final_state")),
                          accepted_error("final_state", type));
            }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, KimiDeltaAttentionOnCpus, testing::ValuesIn(variants_of_delta_rules()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

TEST(KimiDeltaAttentionOnAmx, is_that_of_avx512_bf16) {
    if (supported_isas().back() != Isa::amx_bf16) GTEST_SKIP() << "no AMX here";
    KimiDeltaAttentionCase c;
    c.shape = {1, 90, 2, 64, 64};
    c.options.element_type = ElementType::bfloat16;
    c.fill();
    EXPECT_EQ(c.run(Isa::amx_bf16, 2), c.run(Isa::avx512_bf16, 2));
}

TEST(KimiDeltaAttentionReference, gradients_are_the_difference_quotients) {
    KimiDeltaAttentionCase c;
    c.shape = {1, 7, 1, 5, 4};
    for (const float bound : {0.0F, -5.0F})
        for (bool silu : {false, true}) {
            c.options.silu = c.options.l2_normalize = silu;
            c.options.lower_bound = bound;
            c.seed += 1;
            c.fill();
            auto sequence = c.sequence(0);
            std::mt19937 random(7);
            std::normal_distribution<double> normal;
            std::vector<double> d_o(7 * 4), d_final(5 * 4);
            for (double& x : d_o) x = normal(random);
            for (double& x : d_final) x = normal(random);
            const auto loss = [&] {
                const auto result = kimi_delta_attention_reference(sequence);
                double sum = 0;
                for (size_t i = 0; i < d_o.size(); ++i) sum += result.o[i] * d_o[i];
                for (size_t i = 0; i < d_final.size(); ++i) sum += result.final_state[i] * d_final[i];
                return sum;
            };
            const auto gradients = kimi_delta_attention_reference_backward(sequence, d_o, d_final);
            const auto compare = [&](double& x, double gradient, const char* name) {
                constexpr double step = 1e-5;
                const double kept = x;
                x = kept + step;
                const double above = loss();
                x = kept - step;
                const double below = loss();
                x = kept;
                EXPECT_NEAR((above - below) / (2 * step), gradient, 1e-7 * (1 + std::abs(gradient))) << name;
            };
            const auto compare_all = [&](std::vector<double>& x, const std::vector<double>& gradient,
                                         const char* name) {
                ASSERT_EQ(x.size(), gradient.size());
                for (size_t i = 0; i < x.size(); ++i) compare(x[i], gradient[i], name);
            };
            compare_all(sequence.q, gradients.q, "q");
            compare_all(sequence.k, gradients.k, "k");
            compare_all(sequence.v, gradients.v, "v");
            compare_all(sequence.a, gradients.a, "a");
            compare_all(sequence.b, gradients.b, "b");
            compare_all(sequence.dt_bias, gradients.dt_bias, "dt_bias");
            compare_all(sequence.initial_state, gradients.initial_state, "initial_state");
            compare(sequence.A_log, gradients.A_log, "A_log");
        }
}

TEST(KimiDeltaAttentionInterface, slots_name_the_states_that_rows_continue) {
    for (const Isa isa : supported_isas()) {
        KimiDeltaAttentionCase c;
        c.shape = {3, 1, 2, 16, 16};
        c.options.isa = isa;
        c.fill();
        const int64_t size = 2 * 16 * 16;
        std::vector<float> by_row = c.initial_state, states(4 * size, 7.0F), o(3 * 2 * 16), in_slots(o.size(), 5.0F);
        kimi_delta_attention_decode(c.shape, c.options, c.inputs(), by_row.data(), o.data());
        const std::vector<int32_t> slot = {3, -1, 0};  // the second row is left alone
        for (const int64_t row : {0, 2})
            std::copy_n(c.initial_state.begin() + row * size, size, states.begin() + slot[row] * size);
        GatedDeltaRuleInputs inputs = c.inputs();
        inputs.slot = slot.data();
        kimi_delta_attention_decode(c.shape, c.options, inputs, states.data(), in_slots.data());
        for (const int64_t row : {0, 2}) {
            EXPECT_TRUE(std::equal(o.begin() + row * 32, o.begin() + (row + 1) * 32, in_slots.begin() + row * 32));
            EXPECT_TRUE(std::equal(by_row.begin() + row * size, by_row.begin() + (row + 1) * size,
                                   states.begin() + slot[row] * size));
        }
        for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(in_slots[32 + i], 5.0F);
        for (int64_t i = size; i < 3 * size; ++i) ASSERT_EQ(states[i], 7.0F);
    }
}

TEST(KimiDeltaAttentionInterface, refuses_what_cannot_be_computed) {
    KimiDeltaAttentionCase c;
    c.shape = {1, 4, 1, 16, 16};
    c.fill();
    std::vector<float> o(4 * 16), state(16 * 16);
    const auto refused = [&](const KimiDeltaAttentionOptions& options, const GatedDeltaRuleInputs& inputs) {
        EXPECT_THROW(kimi_delta_attention_forward(c.shape, options, inputs, {o.data(), nullptr}, nullptr),
                     std::invalid_argument);
    };
    EXPECT_NO_THROW(kimi_delta_attention_forward(c.shape, c.options, c.inputs(), {o.data(), nullptr}, nullptr));
    KimiDeltaAttentionOptions growing = c.options;
    growing.lower_bound = 5.0F;
    refused(growing, c.inputs());
    GatedDeltaRuleInputs narrow = c.inputs();
    narrow.a.stride = 15;  // one gate for each key channel
    refused(c.options, narrow);
    EXPECT_THROW(kimi_delta_attention_decode(c.shape, c.options, c.inputs(), state.data(), o.data()),
                 std::invalid_argument);
}

}  // namespace
}  // namespace amalgam::kernels
