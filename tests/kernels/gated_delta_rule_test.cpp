// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/gated_delta_rule.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "delta_rule_expectations.h"
#include "gated_delta_rule_case.h"

namespace amalgam::kernels {
namespace {

/// Accepted RMS(error) / RMS(reference) per result. In bf16 every result, d A_log and d dt_bias apart, is itself
/// rounded to bf16 or computed from operands that are.
double accepted_error(const std::string& name, ElementType type) {
    if (type == ElementType::float32) return 1e-5;
    if (name == "o" || name == "final_state") return 0.005;
    if (name == "dq" || name == "dk" || name == "dv" || name == "dinitial_state") return 0.006;
    return 0.008;
}

std::string describe(const GatedDeltaRuleCase& c) {
    return std::string(isa_name(c.options.isa)) + (c.options.element_type == ElementType::float32 ? " fp32" : " bf16") +
           " time " + std::to_string(c.shape.time) + " dims " + std::to_string(c.shape.key_dim) + " x " +
           std::to_string(c.shape.value_dim) + (c.options.silu ? " silu" : "") +
           (c.options.l2_normalize ? " normalised" : "") + " gate shift " + std::to_string(c.gate_shift);
}

class GatedDeltaRuleVariants : public testing::Test {
  protected:
    static void check(const GatedDeltaRuleCase& c) { expect_close_in_all_variants(c, accepted_error, describe); }
};

class GatedDeltaRuleOnCpus : public testing::TestWithParam<Isa> {};

TEST_F(GatedDeltaRuleVariants, any_length_matches_recurrence) {
    for (int64_t time : {1, 2, 15, 33, 63, 64, 65, 130, 200}) {
        GatedDeltaRuleCase c;
        c.shape = {2, time, 2, 64, 64};
        c.options.silu = true;
        check(c);
    }
}

TEST_F(GatedDeltaRuleVariants, any_dimension_matches_recurrence) {
    for (const auto& [key, value] : {std::pair{8, 8},
                                     {16, 16},
                                     {24, 40},
                                     {32, 32},
                                     {64, 128},
                                     {128, 64},
                                     {128, 128},
                                     {13, 6},
                                     {256, 48},
                                     {96, 96}}) {
        GatedDeltaRuleCase c;
        c.shape = {1, 90, 2, key, value};
        c.options.silu = true;
        check(c);
    }
}

TEST_F(GatedDeltaRuleVariants, packed_sequences_match_recurrence) {
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{
             {5}, {64, 64}, {63, 1, 65, 0, 200}, {0, 0, 7, 0}, {1, 1, 1, 130, 1}, {300, 20, 129, 64, 77}})
        for (const int64_t dim : {64, 13}) {  // by a kernel and by the recurrence
            GatedDeltaRuleCase c;
            c.shape = {1, 1, 3, dim, dim};
            c.options.silu = true;
            c.pack(lengths);
            check(c);
        }
}

TEST_F(GatedDeltaRuleVariants, options_match_recurrence) {
    for (bool silu : {false, true}) {
        for (bool normalize : {false, true}) {
            for (bool states : {false, true}) {
                GatedDeltaRuleCase c;
                c.shape = {1, 100, 3, 32, 32};
                c.options.silu = silu;
                c.options.l2_normalize = normalize;
                c.options.scale = 0.3F;
                c.with_states = states;
                check(c);
            }
        }
    }
}

TEST_F(GatedDeltaRuleVariants, weak_and_strong_gates_match_recurrence) {
    for (double shift : {-40.0, -8.0, 0.0, 3.0}) {
        GatedDeltaRuleCase c;
        c.shape = {1, 150, 2, 64, 64};
        c.gate_shift = shift;
        check(c);
    }
}

/// With all log decays near -30.
TEST_F(GatedDeltaRuleVariants, strongest_gates_stay_finite) {
    GatedDeltaRuleCase c;
    c.shape = {2, 130, 6, 64, 64};
    c.gate_shift = 100;
    expect_finite_in_all_variants(c, accepted_error, describe);
}

TEST_P(GatedDeltaRuleOnCpus, threads_and_repetition_do_not_change_a_bit) {
    for (ElementType type : {ElementType::float32, ElementType::bfloat16}) {
        GatedDeltaRuleCase c;
        c.shape = {3, 100, 3, 64, 64};
        c.options.element_type = type;
        c.options.silu = true;
        c.fill();
        const NamedValues once = c.run(GetParam(), 1);
        EXPECT_EQ(once, c.run(GetParam(), 2));
        EXPECT_EQ(once, c.run(GetParam(), 5));
        EXPECT_EQ(once, c.run(GetParam(), 1));
    }
}

TEST_P(GatedDeltaRuleOnCpus, gradients_leave_the_rest_of_the_fused_buffer_alone) {
    GatedDeltaRuleCase c;
    c.shape = {1, 70, 2, 24, 40};
    c.fill();
    Activations gradient(c.options.element_type, c.shape.time * c.token_width());
    Activations o(c.options.element_type, c.shape.time * c.shape.heads * c.shape.value_dim);
    std::vector<float> d_A_log(2);
    std::vector<float> d_dt_bias(2);
    c.options.isa = GetParam();
    const size_t bytes = gated_delta_rule_workspace_bytes(c.shape, c.options);
    std::vector<unsigned char> workspace(bytes + 64);
    gated_delta_rule_forward(c.shape, c.options, c.inputs(), {o.at(0), nullptr}, workspace.data());
    const auto view = [&](char part) { return Rows{gradient.at(c.offset(part)), c.token_width()}; };
    gated_delta_rule_backward(
        c.shape, c.options, c.inputs(), c.output_gradient.at(0), nullptr, workspace.data(),
        {view('q'), view('k'), view('v'), view('a'), view('b'), d_A_log.data(), d_dt_bias.data(), nullptr});
    const int64_t used = c.token_width() - 3;
    for (int64_t t = 0; t < c.shape.time; ++t) {
        for (int64_t i = 0; i < c.token_width(); ++i) {
            EXPECT_EQ(std::isnan(gradient.get(t * c.token_width() + i)), i >= used);
        }
    }
}

TEST_P(GatedDeltaRuleOnCpus, decoding_token_by_token_equals_the_chunk_form) {
    for (const auto& [key, value] : {std::pair{64, 64}, {24, 40}, {128, 128}, {7, 5}}) {
        for (ElementType type : {ElementType::float32, ElementType::bfloat16}) {
            GatedDeltaRuleCase c;
            c.shape = {2, 70, 3, key, value};
            c.options.element_type = type;
            c.options.silu = true;
            c.options.isa = GetParam();
            c.fill();
            const NamedValues reference = c.run_reference();
            SCOPED_TRACE(describe(c));

            std::vector<float> state = c.initial_state;
            std::vector<double> outputs(reference.at("o").size());
            GatedDeltaRuleShape one = c.shape;
            one.time = 1;
            Activations o(type, one.batch * one.heads * value);
            for (int64_t t = 0; t < c.shape.time; ++t) {
                // The views' sequences follow each other at one token, so each sequence decodes by itself.
                for (int64_t sequence = 0; sequence < c.shape.batch; ++sequence) {
                    GatedDeltaRuleInputs inputs = c.inputs();
                    const int64_t at = (sequence * c.shape.time + t) * c.token_width();
                    inputs.q.data = c.fused.at(at + c.offset('q'));
                    inputs.k.data = c.fused.at(at + c.offset('k'));
                    inputs.v.data = c.fused.at(at + c.offset('v'));
                    inputs.a.data = c.fused.at(at + c.offset('a'));
                    inputs.b.data = c.fused.at(at + c.offset('b'));
                    one.batch = 1;
                    gated_delta_rule_decode(one, c.options, inputs, state.data() + sequence * one.heads * key * value,
                                            o.at(0));
                    for (int64_t h = 0; h < one.heads; ++h) {
                        for (int64_t i = 0; i < value; ++i) {
                            outputs[((sequence * one.heads + h) * c.shape.time + t) * value + i] = o.get(h * value + i);
                        }
                    }
                }
            }
            EXPECT_LE(relative_error(outputs, reference.at("o")), accepted_error("o", type));
            EXPECT_LE(relative_error({state.begin(), state.end()}, reference.at("final_state")),
                      accepted_error("final_state", type));
        }
    }
}

INSTANTIATE_TEST_SUITE_P(EveryIsa, GatedDeltaRuleOnCpus, testing::ValuesIn(variants_of_delta_rules()),
                         [](const auto& info) { return std::string(isa_name(info.param)); });

TEST(GatedDeltaRuleOnAmx, is_that_of_avx512_bf16) {
    if (supported_isas().back() != Isa::amx_bf16) GTEST_SKIP() << "no AMX here";
    GatedDeltaRuleCase c;
    c.shape = {1, 90, 2, 64, 64};
    c.options.element_type = ElementType::bfloat16;
    c.fill();
    EXPECT_EQ(c.run(Isa::amx_bf16, 2), c.run(Isa::avx512_bf16, 2));
}

TEST(GatedDeltaRuleReference, gradients_are_the_difference_quotients) {
    GatedDeltaRuleCase c;
    c.shape = {1, 7, 1, 5, 4};
    for (bool silu : {false, true}) {
        for (bool normalize : {false, true}) {
            c.options.silu = silu;
            c.options.l2_normalize = normalize;
            c.seed += 1;
            c.fill();
            auto sequence = c.sequence(0);
            std::mt19937 random(7);
            std::normal_distribution<double> normal;
            std::vector<double> d_o(7 * 4);
            std::vector<double> d_final(5 * 4);
            for (double& x : d_o) x = normal(random);
            for (double& x : d_final) x = normal(random);
            const auto loss = [&] {
                const auto result = gated_delta_rule_reference(sequence);
                double sum = 0;
                for (size_t i = 0; i < d_o.size(); ++i) sum += result.o[i] * d_o[i];
                for (size_t i = 0; i < d_final.size(); ++i) sum += result.final_state[i] * d_final[i];
                return sum;
            };
            auto gradients = gated_delta_rule_reference_backward(sequence, d_o, d_final);
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
            compare_all(sequence.initial_state, gradients.initial_state, "initial_state");
            compare(sequence.A_log, gradients.A_log, "A_log");
            compare(sequence.dt_bias, gradients.dt_bias, "dt_bias");
        }
    }
}

TEST(GatedDeltaRuleInterface, slots_name_the_states_that_rows_continue) {
    for (const Isa isa : supported_isas()) {
        GatedDeltaRuleCase c;
        c.shape = {3, 1, 2, 16, 16};
        c.options.isa = isa;
        c.fill();
        const int64_t size = 2 * 16 * 16;
        std::vector<float> by_row = c.initial_state, states(4 * size, 7.0F), o(3 * 2 * 16), in_slots(o.size(), 5.0F);
        gated_delta_rule_decode(c.shape, c.options, c.inputs(), by_row.data(), o.data());
        const std::vector<int32_t> slot = {3, -1, 0};  // the second row is left alone
        for (const int64_t row : {0, 2})
            std::copy_n(c.initial_state.begin() + row * size, size, states.begin() + slot[row] * size);
        GatedDeltaRuleInputs inputs = c.inputs();
        inputs.slot = slot.data();
        gated_delta_rule_decode(c.shape, c.options, inputs, states.data(), in_slots.data());
        for (const int64_t row : {0, 2}) {
            EXPECT_TRUE(std::equal(o.begin() + row * 32, o.begin() + (row + 1) * 32, in_slots.begin() + row * 32));
            EXPECT_TRUE(std::equal(by_row.begin() + row * size, by_row.begin() + (row + 1) * size,
                                   states.begin() + slot[row] * size));
        }
        for (int64_t i = 0; i < 32; ++i) EXPECT_EQ(in_slots[32 + i], 5.0F);
        for (int64_t i = size; i < 3 * size; ++i) ASSERT_EQ(states[i], 7.0F);
    }
}

TEST(GatedDeltaRuleInterface, refuses_what_cannot_be_computed) {
    GatedDeltaRuleCase c;
    c.shape = {1, 4, 1, 16, 16};
    c.fill();
    std::vector<float> o(4 * 16);
    GatedDeltaRuleInputs inputs = c.inputs();
    inputs.q.stride = 15;
    EXPECT_THROW(gated_delta_rule_forward(c.shape, c.options, inputs, {o.data(), nullptr}, nullptr),
                 std::invalid_argument);
    EXPECT_THROW(gated_delta_rule_forward(c.shape, c.options, c.inputs(), {nullptr, nullptr}, nullptr),
                 std::invalid_argument);
    std::vector<float> state(16 * 16);
    EXPECT_THROW(gated_delta_rule_decode(c.shape, c.options, c.inputs(), state.data(), o.data()),
                 std::invalid_argument);
    c.pack({1, 3});
    c.starts = {0, 3, 2, 4};
    c.shape.packed = 3;
    EXPECT_THROW(gated_delta_rule_forward(c.shape, c.options, c.inputs(), {o.data(), nullptr}, nullptr),
                 std::invalid_argument);
    c.shape.batch = 2;
    EXPECT_THROW(gated_delta_rule_workspace_bytes(c.shape, c.options), std::invalid_argument);
    c.shape = {1, 0, 1, 16, 16};
    EXPECT_THROW(gated_delta_rule_workspace_bytes(c.shape, c.options), std::invalid_argument);
}

TEST(GatedDeltaRuleInterface, fast_path_takes_multiples_of_eight) {
    GatedDeltaRuleOptions options;
    options.isa = supported_isas().back();
    // Only the fast path saves anything for the backward pass.
    const auto is_fast = [&](int64_t key_dim, int64_t value_dim) {
        return gated_delta_rule_workspace_bytes({1, 1, 1, key_dim, value_dim}, options) > 0;
    };
    EXPECT_EQ(is_fast(64, 256), options.isa != Isa::reference);
    EXPECT_FALSE(is_fast(20, 64));
    EXPECT_FALSE(is_fast(64, 264));
}

}  // namespace
}  // namespace amalgam::kernels
