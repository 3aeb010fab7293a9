// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of the gated delta rule against the fp64 recurrence. Skipped where there is no GPU.
#include "cuda_mixer_test.h"
#include "gated_delta_rule_cuda_case.h"

namespace amalgam::kernels {
namespace {

/// Accepted RMS(error) / RMS(reference) over all cases of a test. One short sequence of one head has too few numbers:
/// the gradients of the gates are sums of terms of either sign, and what the terms' errors amount to depends on how far
/// a sum happens to cancel. Those of A_log and dt_bias are such sums over all tokens.
double accepted_error(const std::string& name) {
    if (name == "o" || name == "final_state") return 0.005;
    if (name == "dq" || name == "dk" || name == "dv" || name == "dinitial_state") return 0.006;
    return name == "dA_log" || name == "ddt_bias" ? 0.04 : 0.008;
}

class GatedDeltaRuleOnCuda : public CudaMixer<GatedDeltaRuleCase> {
  protected:
    GatedDeltaRuleOnCuda() : CudaMixer(accepted_error) {}
    void check(GatedDeltaRuleCase& c, bool aligned = true) {
        keep(c, [&](GatedDeltaRuleCase& filled) { return run_cuda(filled, aligned); });
    }
};

TEST_P(GatedDeltaRuleOnCuda, any_length_matches_recurrence) {
    for (int64_t time = 1; time <= 33; ++time) {
        GatedDeltaRuleCase c = make_case(1, time, 2);
        check(c);
    }
    for (int64_t time : {63, 64, 65, 127, 128, 130, 200, 513}) {
        GatedDeltaRuleCase c = make_case(2, time, 2);
        check(c);
    }
}

TEST_P(GatedDeltaRuleOnCuda, many_heads_match_recurrence) {
    GatedDeltaRuleCase c = make_case(4, 130, 30);
    check(c);
}

TEST_P(GatedDeltaRuleOnCuda, packed_sequences_match_recurrence) {
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{
             {5}, {64, 64}, {63, 1, 65, 0, 200}, {0, 0, 7, 0}, {1, 1, 1, 130, 1}, {300, 20, 129, 64, 77, 191, 3}}) {
        for (bool silu : {false, true}) {
            GatedDeltaRuleCase c = make_case(1, 1, 3);
            c.pack(lengths);
            c.options.silu = silu;
            check(c, !silu);
        }
    }
    GatedDeltaRuleCase c = make_case(1, 1, 30);  // more than run at once
    c.pack(std::vector<int64_t>(12, 70));
    check(c);
}

/// A sequence's results do not depend on what lies beside it.
TEST_P(GatedDeltaRuleOnCuda, packed_sequences_are_those_of_a_batch) {
    GatedDeltaRuleCase batch = make_case(5, 150, 3);
    batch.fill();
    GatedDeltaRuleCase packed = batch;
    packed.pack(std::vector<int64_t>(5, 150));
    NamedValues expected = run_cuda(batch, true), found = run_cuda(packed, true);
    for (const char* name : {"dA_log", "ddt_bias"}) {  // sums in another order
        EXPECT_LE(relative_error(found.at(name), expected.at(name)), 1e-5) << name;
        expected.erase(name), found.erase(name);
    }
    EXPECT_EQ(found, expected);
}

TEST_P(GatedDeltaRuleOnCuda, options_match_recurrence) {
    for (bool silu : {false, true}) {
        for (bool normalize : {false, true}) {
            for (bool states : {false, true}) {
                for (bool aligned : {false, true}) {
                    GatedDeltaRuleCase c = make_case(1, 100, 3);
                    c.options.silu = silu;
                    c.options.l2_normalize = normalize;
                    c.options.scale = 0.3F;
                    c.with_states = states;
                    check(c, aligned);
                }
            }
        }
    }
}

TEST_P(GatedDeltaRuleOnCuda, weak_and_strong_gates_match_recurrence) {
    for (double shift : {-40.0, -8.0, 0.0, 3.0}) {
        GatedDeltaRuleCase c = make_case(1, 150, 4);
        c.gate_shift = shift;
        check(c);
    }
}

/// With all log decays near -30 the gate's gradient is made of terms near e^-30, below rounding: finite is enough.
TEST_P(GatedDeltaRuleOnCuda, strongest_gates_stay_finite) {
    GatedDeltaRuleCase c = make_case(2, 130, 4);
    c.gate_shift = 100;
    c.fill();
    const NamedValues results = run_cuda(c, true), reference = c.run_reference();
    for (const char* name : {"o", "dq", "dk", "dv", "db", "final_state"})
        EXPECT_LE(relative_error(results.at(name), reference.at(name)), accepted_error(name)) << name;
    for (const auto& [name, values] : results)
        for (double value : values) ASSERT_TRUE(std::isfinite(value)) << name;
}

TEST_P(GatedDeltaRuleOnCuda, repetition_does_not_change_a_bit) {
    GatedDeltaRuleCase c = make_case(3, 200, 5);
    c.options.silu = true;
    c.fill();
    const NamedValues once = run_cuda(c, true);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(once, run_cuda(c, true));
}

TEST_P(GatedDeltaRuleOnCuda, decoding_matches_recurrence) {
    for (const auto& [sequences, silu] : {std::pair{5, false}, {5, true}, {1, false}, {30, true}}) {
        GatedDeltaRuleCase c = make_case(sequences, 1, 3);
        c.options.silu = silu;
        c.fill();
        const NamedValues reference = c.run_reference();
        for (const auto& [name, values] : run_cuda_decode(c))
            EXPECT_LE(relative_error(values, reference.at(name)), accepted_error(name)) << name;
    }
}

/// A negative control: these comparisons notice one wrong row.
TEST_P(GatedDeltaRuleOnCuda, a_wrong_token_is_noticed) {
    GatedDeltaRuleCase c = make_case(1, 200, 2);
    c.fill();
    const NamedValues right = c.run_reference();
    c.fused.set(100 * c.token_width() + c.offset('v'), 30.0F);
    EXPECT_GT(relative_error(run_cuda(c, true).at("o"), right.at("o")), 0.01);
}

TEST_P(GatedDeltaRuleOnCuda, other_shapes_and_types_are_refused) {
    GatedDeltaRuleCase c = make_case(1, 10, 1);
    EXPECT_TRUE(cuda::gated_delta_rule_supports(c.shape, c.options));
    EXPECT_THROW(cuda::gated_delta_rule_decode(c.shape, c.options, {}, nullptr, nullptr, nullptr),
                 std::invalid_argument);
    c.options.element_type = ElementType::float32;
    EXPECT_FALSE(cuda::gated_delta_rule_supports(c.shape, c.options));
    EXPECT_THROW(cuda::gated_delta_rule_forward(c.shape, c.options, {}, {}, nullptr, false, nullptr),
                 std::invalid_argument);
    c.options.element_type = ElementType::bfloat16;
    c.shape.key_dim = 32;
    EXPECT_FALSE(cuda::gated_delta_rule_supports(c.shape, c.options));
}

INSTANTIATE_TEST_SUITE_P(HeadDimensions, GatedDeltaRuleOnCuda, testing::Values(64, 128));

}  // namespace
}  // namespace amalgam::kernels
