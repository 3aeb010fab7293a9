// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of gated linear attention against the fp64 recurrence. Skipped where there is no GPU.
#include "cuda_mixer_test.h"
#include "gated_linear_attention_cuda_case.h"

namespace amalgam::kernels {
namespace {

/// Accepted RMS(error) / RMS(reference) over all cases of a test.
double accepted_error(const std::string& name) {
    if (name == "o" || name == "final_state") return 0.005;
    return name == "dgate" ? 0.008 : 0.006;
}

class GatedLinearAttentionOnCuda : public CudaMixer<GatedLinearAttentionCase> {
  protected:
    GatedLinearAttentionOnCuda() : CudaMixer(accepted_error) {}
    void check(GatedLinearAttentionCase c) {
        keep(c, [](const GatedLinearAttentionCase& filled) { return run_cuda(filled); });
    }
};

TEST_P(GatedLinearAttentionOnCuda, any_length_matches_recurrence) {
    for (int64_t time = 1; time <= 33; ++time) check(make_case(1, time, 2));
    for (int64_t time : {63, 64, 65, 127, 128, 130, 200, 513}) check(make_case(2, time, 2));
}

TEST_P(GatedLinearAttentionOnCuda, many_heads_match_recurrence) {
    check(make_case(4, 130, 30));
}

TEST_P(GatedLinearAttentionOnCuda, options_match_recurrence) {
    for (bool states : {false, true}) {
        for (float normalizer : {1.0F, 4.0F, 16.0F}) {
            GatedLinearAttentionCase c = make_case(1, 150, 3);
            c.options.scale = 0.3F;
            c.options.gate_logit_normalizer = normalizer;
            c.with_states = states;
            check(c);
        }
    }
}

/// From no decay to one that leaves nothing of a token after the next.
TEST_P(GatedLinearAttentionOnCuda, weak_and_strong_gates_match_recurrence) {
    for (float shift : {20.0F, 4.0F, -4.0F, -20.0F, -100.0F, -480.0F}) {
        GatedLinearAttentionCase c = make_case(1, 150, 3);
        c.gate_shift = shift;
        check(c);
    }
}

/// Channels that keep everything beside ones that forget at once: steep chunks beside others.
TEST_P(GatedLinearAttentionOnCuda, unequal_gates_match_recurrence) {
    for (float spread : {10.0F, 100.0F}) {
        for (float normalizer : {16.0F, 1.0F}) {
            GatedLinearAttentionCase c = make_case(2, 300, 2);
            c.gate_spread = spread;
            c.options.gate_logit_normalizer = normalizer;
            check(c);
        }
    }
}

TEST_P(GatedLinearAttentionOnCuda, repetition_does_not_change_a_bit) {
    GatedLinearAttentionCase c = make_case(3, 200, 5);
    c.fill();
    const NamedValues once = run_cuda(c);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(once, run_cuda(c));
}

TEST_P(GatedLinearAttentionOnCuda, decoding_matches_recurrence) {
    for (const int64_t sequences : {1, 5, 30}) {
        for (const float spread : {1.0F, 10.0F}) {
            GatedLinearAttentionCase c = make_case(sequences, 1, 3);
            c.gate_spread = spread;
            c.fill();
            const NamedValues reference = c.run_reference();
            for (const auto& [name, values] : run_cuda_decode(c))
                EXPECT_LE(relative_error(values, reference.at(name)), accepted_error(name)) << name;
        }
    }
}

/// A negative control: these comparisons notice one wrong row.
TEST_P(GatedLinearAttentionOnCuda, a_wrong_token_is_noticed) {
    GatedLinearAttentionCase c = make_case(1, 200, 2);
    c.fill();
    const NamedValues right = c.run_reference();
    c.fused.set(100 * c.stride() + 2 * c.width(), 30.0F);
    EXPECT_GT(relative_error(run_cuda(c).at("o"), right.at("o")), 0.01);
}

TEST_P(GatedLinearAttentionOnCuda, what_has_no_kernel_is_refused) {
    GatedLinearAttentionCase c = make_case(1, 10, 1);
    EXPECT_TRUE(cuda::gated_linear_attention_supports(c.shape, c.options));
    EXPECT_THROW(cuda::gated_linear_attention_forward(c.shape, c.options, {}, {}, nullptr, nullptr),
                 std::invalid_argument);
    c.shape.value_dim = 32;
    EXPECT_FALSE(cuda::gated_linear_attention_supports(c.shape, c.options));
}

INSTANTIATE_TEST_SUITE_P(HeadDimensions, GatedLinearAttentionOnCuda, testing::Values(64, 128));

}  // namespace
}  // namespace amalgam::kernels
