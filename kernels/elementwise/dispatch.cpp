// SPDX-License-Identifier: Apache-2.0
// The public functions of the elementwise and row-wise kernels: each checks what would read outside its arrays and
// calls the version compiled for this processor (kernels/isa/isa.h; the environment variable AMALGAM_ISA may name
// another).
#include <stdexcept>
#include <string>

#include "kernels/adamw/adamw.h"
#include "kernels/alignment_loss/alignment_loss.h"
#include "kernels/cross_entropy/cross_entropy.h"
#include "kernels/gated_linear_attention/gated_linear_attention.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "kernels/isa/isa.h"
#include "kernels/kl_divergence/kl_divergence.h"
#include "kernels/rms_norm/rms_norm.h"
#include "kernels/rotary/rotary.h"
#include "kernels/silu_convolution/silu_convolution.h"
#include "kernels/swiglu/swiglu.h"

namespace amalgam::kernels {

#define AMALGAM_DECLARE_KERNELS(isa)                                                                                 \
    namespace isa {                                                                                                  \
    void rms_norm_forward(const RmsNormForward&, int);                                                               \
    void rms_norm_backward(const RmsNormBackward&, int);                                                             \
    void gated_rms_norm_forward(const GatedRmsNormForward&, int);                                                    \
    void gated_rms_norm_backward(const GatedRmsNormBackward&, int);                                                  \
    void swiglu_forward(const SwigluForward&, int);                                                                  \
    void swiglu_backward(const SwigluBackward&, int);                                                                \
    void rotary_forward(const Rotary&, int);                                                                         \
    void rotary_backward(const Rotary&, int);                                                                        \
    void kl_divergence(const KlDivergence&, int);                                                                    \
    void kl_divergence_with_gradient(const KlDivergenceGradient&, int);                                              \
    void cross_entropy(const CrossEntropy&, int);                                                                    \
    void cross_entropy_with_gradient(const CrossEntropyGradient&, int);                                              \
    void adamw_step(const AdamwStep&, int);                                                                          \
    double sum_of_squares(const float*, std::int64_t, int);                                                          \
    void silu_convolution_forward(const SiluConvolutionForward&, int);                                               \
    void silu_convolution_backward(const SiluConvolutionBackward&, int);                                             \
    void alignment_loss(const AlignmentLoss&, int);                                                                  \
    void gated_linear_attention_forward(const GatedLinearAttentionShape&, const GatedLinearAttentionOptions&,        \
                                        const GatedLinearAttentionInputs&, const GatedLinearAttentionOutputs&, int); \
    void gated_linear_attention_backward(const GatedLinearAttentionShape&, const GatedLinearAttentionOptions&,       \
                                         const GatedLinearAttentionInputs&, const void*, const float*,               \
                                         const GatedLinearAttentionGradients&, int);                                 \
    }

AMALGAM_DECLARE_KERNELS(portable)
#ifdef AMALGAM_KERNELS_X86
AMALGAM_DECLARE_KERNELS(avx2)
AMALGAM_DECLARE_KERNELS(avx512)
AMALGAM_DECLARE_KERNELS(avx512_bf16)
#define AMALGAM_CALL(function, ...)                    \
    switch (resolve_isa(Isa::automatic)) {             \
        case Isa::avx2:                                \
            return avx2::function(__VA_ARGS__);        \
        case Isa::avx512:                              \
            return avx512::function(__VA_ARGS__);      \
        case Isa::avx512_bf16:                         \
            return avx512_bf16::function(__VA_ARGS__); \
        default:                                       \
            return portable::function(__VA_ARGS__);    \
    }
#else
#define AMALGAM_CALL(function, ...) return portable::function(__VA_ARGS__)
#endif

namespace {

void require(bool condition, const char* problem) {
    if (!condition) throw std::invalid_argument(problem);
}

}  // namespace

void rms_norm_forward(const RmsNormForward& arguments, int threads) {
    require(
        !arguments.residual || arguments.sum,
        "rms_norm: a residual without a sum (the backward needs the sum) pass `sum`, if need be the residual itself");
    AMALGAM_CALL(rms_norm_forward, arguments, threads);
}

void rms_norm_backward(const RmsNormBackward& arguments, int threads) {
    AMALGAM_CALL(rms_norm_backward, arguments, threads);
}

void gated_rms_norm_forward(const GatedRmsNormForward& arguments, int threads) {
    AMALGAM_CALL(gated_rms_norm_forward, arguments, threads);
}

void gated_rms_norm_backward(const GatedRmsNormBackward& arguments, int threads) {
    require(!arguments.z || arguments.z_gradient,
            "gated_rms_norm: z without z_gradient (the backward of a gate writes it) pass `z_gradient`");
    AMALGAM_CALL(gated_rms_norm_backward, arguments, threads);
}

void swiglu_forward(const SwigluForward& arguments, int threads) {
    AMALGAM_CALL(swiglu_forward, arguments, threads);
}

void swiglu_backward(const SwigluBackward& arguments, int threads) {
    AMALGAM_CALL(swiglu_backward, arguments, threads);
}

void rotary_forward(const Rotary& arguments, int threads) {
    require(arguments.width % 2 == 0, "rotary: width is odd (its halves are rotated into each other)");
    AMALGAM_CALL(rotary_forward, arguments, threads);
}

void rotary_backward(const Rotary& arguments, int threads) {
    require(arguments.width % 2 == 0, "rotary: width is odd (its halves are rotated into each other)");
    AMALGAM_CALL(rotary_backward, arguments, threads);
}

void kl_divergence(const KlDivergence& arguments, int threads) {
    AMALGAM_CALL(kl_divergence, arguments, threads);
}

void kl_divergence_with_gradient(const KlDivergenceGradient& arguments, int threads) {
    AMALGAM_CALL(kl_divergence_with_gradient, arguments, threads);
}

template <class Arguments>
static void require_targets_in_vocabulary(const Arguments& arguments) {
    for (std::int64_t row = 0; row < arguments.rows; ++row) {
        if (arguments.targets[row] < arguments.vocabulary) continue;
        throw std::invalid_argument("cross_entropy: target " + std::to_string(arguments.targets[row]) + " of row " +
                                    std::to_string(row) + " is not below the vocabulary size " +
                                    std::to_string(arguments.vocabulary) +
                                    " (the row has no such logit) check that tokenizer and model belong together");
    }
}

void cross_entropy(const CrossEntropy& arguments, int threads) {
    require_targets_in_vocabulary(arguments);
    AMALGAM_CALL(cross_entropy, arguments, threads);
}

void cross_entropy_with_gradient(const CrossEntropyGradient& arguments, int threads) {
    require_targets_in_vocabulary(arguments);
    AMALGAM_CALL(cross_entropy_with_gradient, arguments, threads);
}

void adamw_step(const AdamwStep& arguments, int threads) {
    require(arguments.step >= 1, "adamw: step is below 1 (the bias correction divides by 1 - beta^step) count from 1");
    AMALGAM_CALL(adamw_step, arguments, threads);
}

double sum_of_squares(const float* values, std::int64_t count, int threads) {
    AMALGAM_CALL(sum_of_squares, values, count, threads);
}

void alignment_loss(const AlignmentLoss& arguments, int threads) {
    AMALGAM_CALL(alignment_loss, arguments, threads);
}

void silu_convolution_forward(const SiluConvolutionForward& arguments, int threads) {
    require(arguments.taps >= 2 && arguments.taps <= 4,
            "silu_convolution: the number of taps is not 2, 3 or 4 (no kernel is compiled for it)");
    AMALGAM_CALL(silu_convolution_forward, arguments, threads);
}

void silu_convolution_backward(const SiluConvolutionBackward& arguments, int threads) {
    require(arguments.taps >= 2 && arguments.taps <= 4,
            "silu_convolution: the number of taps is not 2, 3 or 4 (no kernel is compiled for it)");
    AMALGAM_CALL(silu_convolution_backward, arguments, threads);
}

namespace {

void check(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
           const GatedLinearAttentionInputs& inputs) {
    require(shape.batch > 0 && shape.time > 0 && shape.heads > 0 && shape.key_dim > 0 && shape.value_dim > 0,
            "gated linear attention: a size in the shape is zero or negative (nothing to compute); check the caller's "
            "tensors");
    require(options.gate_logit_normalizer > 0,
            "gated linear attention: gate_logit_normalizer is not positive (gates would grow); pass 16");
    require(inputs.q.data && inputs.k.data && inputs.v.data && inputs.gate.data,
            "gated linear attention: q, k, v or gate is null (every token needs them); pass the tensors' data");
}

}  // namespace

void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, int threads) {
    check(shape, options, inputs);
    require(outputs.o, "gated linear attention: o is null (the output needs a place); pass the output's data");
    AMALGAM_CALL(gated_linear_attention_forward, shape, options, inputs, outputs, threads);
}

void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const GatedLinearAttentionGradients& gradients,
                                     int threads) {
    check(shape, options, inputs);
    require(output_gradient && gradients.q.data && gradients.k.data && gradients.v.data && gradients.gate.data,
            "gated linear attention: a gradient is null (all but the initial state's are needed); pass their data");
    AMALGAM_CALL(gated_linear_attention_backward, shape, options, inputs, output_gradient, final_state_gradient,
                 gradients, threads);
}

}  // namespace amalgam::kernels
