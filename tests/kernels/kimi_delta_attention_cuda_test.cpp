// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of Kimi Delta Attention against the fp64 recurrence. Skipped where there is no GPU.
#include "kernels/kimi_delta_attention/kimi_delta_attention_cuda.h"

#include "cuda_mixer_test.h"
#include "delta_rule_cuda_case.h"
#include "gated_delta_rule_cuda_case.h"
#include "kimi_delta_attention_case.h"

namespace amalgam::kernels {
namespace {

struct KimiDeltaAttentionCuda {
    static constexpr auto workspace_bytes = cuda::kimi_delta_attention_workspace_bytes;
    static constexpr auto scratch_bytes = cuda::kimi_delta_attention_scratch_bytes;
    static constexpr auto forward = cuda::kimi_delta_attention_forward;
    static constexpr auto backward = cuda::kimi_delta_attention_backward;
    static constexpr auto decode = cuda::kimi_delta_attention_decode;
};

/// Accepted RMS(error) / RMS(reference) over all cases of a test. Those of A_log and dt_bias are sums over all tokens
/// whose terms have either sign: what the terms' errors amount to depends on how far a sum happens to cancel.
double accepted_error(const std::string& name) {
    if (name == "o" || name == "final_state") return 0.005;
    if (name == "dq" || name == "dk" || name == "dv" || name == "dinitial_state") return 0.006;
    return name == "dA_log" || name == "ddt_bias" ? 0.04 : 0.008;
}

class KimiDeltaAttentionOnCuda : public CudaMixer<KimiDeltaAttentionCase> {
  protected:
    KimiDeltaAttentionOnCuda() : CudaMixer(accepted_error) {}
    void check(KimiDeltaAttentionCase& c, bool aligned = true) {
        keep(c, [&](KimiDeltaAttentionCase& filled) { return run_on_cuda<KimiDeltaAttentionCuda>(filled, aligned); });
    }
};

TEST_P(KimiDeltaAttentionOnCuda, any_length_matches_recurrence) {
    for (int64_t time = 1; time <= 33; ++time) {
        KimiDeltaAttentionCase c = make_case(1, time, 2);
        c.options.lower_bound = time % 2 == 0 ? 0.0F : -5.0F;
        check(c);
    }
    for (int64_t time : {47, 48, 49, 63, 64, 65, 127, 128, 130, 200, 513}) {
        KimiDeltaAttentionCase c = make_case(2, time, 2);
        check(c);
    }
}

TEST_P(KimiDeltaAttentionOnCuda, many_heads_match_recurrence) {
    KimiDeltaAttentionCase c = make_case(4, 130, 34);
    check(c);
}

TEST_P(KimiDeltaAttentionOnCuda, packed_sequences_match_recurrence) {
    for (const std::vector<int64_t>& lengths : std::vector<std::vector<int64_t>>{
             {5}, {64, 64}, {63, 1, 65, 0, 200}, {0, 0, 7, 0}, {1, 1, 1, 130, 1}, {300, 20, 129, 64, 77, 191, 3}}) {
        for (bool silu : {false, true}) {
            KimiDeltaAttentionCase c = make_case(1, 1, 3);
            c.pack(lengths);
            c.options.silu = silu;
            check(c, !silu);
        }
    }
    KimiDeltaAttentionCase c = make_case(1, 1, 34);  // more than run at once
    c.pack(std::vector<int64_t>(12, 70));
    check(c);
}

/// A sequence's results do not depend on what lies beside it.
TEST_P(KimiDeltaAttentionOnCuda, packed_sequences_are_those_of_a_batch) {
    KimiDeltaAttentionCase batch = make_case(5, 150, 3);
    batch.fill();
    KimiDeltaAttentionCase packed = batch;
    packed.pack(std::vector<int64_t>(5, 150));
    NamedValues expected = run_on_cuda<KimiDeltaAttentionCuda>(batch, true),
                found = run_on_cuda<KimiDeltaAttentionCuda>(packed, true);
    for (const char* name : {"dA_log", "ddt_bias"}) {  // sums in another order
        EXPECT_LE(relative_error(found.at(name), expected.at(name)), 1e-5) << name;
        expected.erase(name), found.erase(name);
    }
    EXPECT_EQ(found, expected);
}

TEST_P(KimiDeltaAttentionOnCuda, options_match_recurrence) {
    for (float bound : {0.0F, -5.0F}) {
        for (bool silu : {false, true}) {
            for (bool normalize : {false, true}) {
                for (bool states : {false, true}) {
                    for (bool aligned : {false, true}) {
                        KimiDeltaAttentionCase c = make_case(1, 100, 3);
                        c.options.lower_bound = bound;
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
}

TEST_P(KimiDeltaAttentionOnCuda, weak_mean_and_steep_gates_match_recurrence) {
    for (float bound : {0.0F, -5.0F, -0.5F}) {
        for (double shift : {-40.0, -8.0, 0.0, 3.0}) {
            for (double spread : {0.5, 4.0}) {  // 4: decays of one channel next to none of another
                KimiDeltaAttentionCase c = make_case(1, 150, 4);
                c.options.lower_bound = bound;
                c.gate_shift = shift, c.gate_spread = spread;
                check(c);
            }
        }
    }
}

/// Log decays near -30, or at the bound, in every channel: the gates' gradients are below rounding, finite is enough.
TEST_P(KimiDeltaAttentionOnCuda, strongest_gates_stay_finite) {
    for (float bound : {0.0F, -5.0F}) {
        KimiDeltaAttentionCase c = make_case(2, 130, 4);
        c.options.lower_bound = bound;
        c.gate_shift = 100;
        c.fill();
        const NamedValues results = run_on_cuda<KimiDeltaAttentionCuda>(c, true), reference = c.run_reference();
        for (const char* name : {"o", "dq", "dk", "dv", "db", "final_state"})
            EXPECT_LE(relative_error(results.at(name), reference.at(name)), accepted_error(name)) << name;
        for (const auto& [name, values] : results)
            for (double value : values) ASSERT_TRUE(std::isfinite(value)) << name;
    }
}

/// Decays so strong that they are zero in fp32 keep nothing of earlier tokens and harm nothing.
TEST_P(KimiDeltaAttentionOnCuda, decays_of_zero_stay_finite) {
    KimiDeltaAttentionCase c = make_case(1, 150, 2);
    c.gate_shift = 1e4, c.gate_spread = 1e4, c.largest_decay = 1e5;
    c.fill();
    const NamedValues results = run_on_cuda<KimiDeltaAttentionCuda>(c, true), reference = c.run_reference();
    for (const char* name : {"o", "dq", "dk", "dv", "final_state"})
        EXPECT_LE(relative_error(results.at(name), reference.at(name)), accepted_error(name)) << name;
    for (const auto& [name, values] : results)
        for (double value : values) ASSERT_TRUE(std::isfinite(value)) << name;
}

/// One decay for all channels of a head makes this the gated delta rule, whose kernels take another way.
TEST_P(KimiDeltaAttentionOnCuda, equal_decays_are_the_gated_delta_rule) {
    GatedDeltaRuleCase of_rule;
    of_rule.shape = {2, 150, 3, GetParam(), GetParam()};
    of_rule.options.element_type = ElementType::bfloat16;
    of_rule.fill();
    KimiDeltaAttentionCase c = make_case(2, 150, 3);
    c.fill();
    const int64_t dim = GetParam();
    c.A_log = of_rule.A_log, c.initial_state = of_rule.initial_state;
    for (int64_t i = 0; i < 3 * dim; ++i) c.dt_bias[i] = of_rule.dt_bias[i / dim];
    for (int64_t t = 0; t < 300; ++t) {
        const auto copy = [&](char part, bool spread) {
            for (int64_t i = 0; i < 3 * c.width(part); ++i)
                c.fused.set(
                    t * c.token_width() + c.offset(part) + i,
                    of_rule.fused.get(t * of_rule.token_width() + of_rule.offset(part) + (spread ? i / dim : i)));
        };
        copy('q', false), copy('k', false), copy('v', false), copy('b', false), copy('a', true);
    }
    const NamedValues expected = run_cuda(of_rule, true), found = run_on_cuda<KimiDeltaAttentionCuda>(c, true);
    for (const char* name : {"o", "final_state"})
        EXPECT_LE(relative_error(found.at(name), expected.at(name)), 0.006) << name;
}

TEST_P(KimiDeltaAttentionOnCuda, repetition_does_not_change_a_bit) {
    KimiDeltaAttentionCase c = make_case(3, 200, 5);
    c.options.silu = true;
    c.fill();
    const NamedValues once = run_on_cuda<KimiDeltaAttentionCuda>(c, true);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(once, run_on_cuda<KimiDeltaAttentionCuda>(c, true));
}

TEST_P(KimiDeltaAttentionOnCuda, decoding_matches_recurrence) {
    for (const auto& [sequences, silu] : {std::pair{5, false}, {5, true}, {1, false}, {30, true}}) {
        for (float bound : {0.0F, -5.0F}) {
            KimiDeltaAttentionCase c = make_case(sequences, 1, 3);
            c.options.silu = silu;
            c.options.lower_bound = bound;
            c.fill();
            const NamedValues reference = c.run_reference();
            for (const auto& [name, values] : run_decode_on_cuda<KimiDeltaAttentionCuda>(c))
                EXPECT_LE(relative_error(values, reference.at(name)), accepted_error(name)) << name;
        }
    }
}

/// A negative control: these comparisons notice one wrong row, and the gate of one channel.
TEST_P(KimiDeltaAttentionOnCuda, a_wrong_token_is_noticed) {
    KimiDeltaAttentionCase c = make_case(1, 200, 2);
    c.fill();
    const NamedValues right = c.run_reference();
    KimiDeltaAttentionCase wrong = c;
    wrong.fused.set(100 * c.token_width() + c.offset('v'), 30.0F);
    EXPECT_GT(relative_error(run_on_cuda<KimiDeltaAttentionCuda>(wrong, true).at("o"), right.at("o")), 0.01);
    wrong = c;
    wrong.dt_bias[5] += 3.0F;
    EXPECT_GT(relative_error(run_on_cuda<KimiDeltaAttentionCuda>(wrong, true).at("da"), right.at("da")), 0.01);
}

TEST_P(KimiDeltaAttentionOnCuda, other_shapes_and_types_are_refused) {
    KimiDeltaAttentionCase c = make_case(1, 10, 1);
    EXPECT_TRUE(cuda::kimi_delta_attention_supports(c.shape, c.options));
    EXPECT_THROW(cuda::kimi_delta_attention_decode(c.shape, c.options, {}, nullptr, nullptr, nullptr),
                 std::invalid_argument);
    c.options.lower_bound = 1.0F;
    EXPECT_THROW(cuda::kimi_delta_attention_forward(c.shape, c.options, {}, {}, nullptr, false, nullptr),
                 std::invalid_argument);
    c.options.lower_bound = 0.0F;
    c.options.element_type = ElementType::float32;
    EXPECT_FALSE(cuda::kimi_delta_attention_supports(c.shape, c.options));
    EXPECT_THROW(cuda::kimi_delta_attention_forward(c.shape, c.options, {}, {}, nullptr, false, nullptr),
                 std::invalid_argument);
    c.options.element_type = ElementType::bfloat16;
    c.shape.key_dim = 32;
    EXPECT_FALSE(cuda::kimi_delta_attention_supports(c.shape, c.options));
}

INSTANTIATE_TEST_SUITE_P(HeadDimensions, KimiDeltaAttentionOnCuda, testing::Values(64, 128));

}  // namespace
}  // namespace amalgam::kernels
