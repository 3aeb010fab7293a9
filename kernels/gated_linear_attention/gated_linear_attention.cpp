// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/gated_linear_attention/gated_linear_attention.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(
    void gated_linear_attention_forward(const GatedLinearAttentionShape&, const GatedLinearAttentionOptions&,
                                        const GatedLinearAttentionInputs&, const GatedLinearAttentionOutputs&, int);
    void gated_linear_attention_decode(const GatedLinearAttentionShape&, const GatedLinearAttentionOptions&,
                                       const GatedLinearAttentionInputs&, float*, void*, int);
    void gated_linear_attention_backward(const GatedLinearAttentionShape&, const GatedLinearAttentionOptions&,
                                         const GatedLinearAttentionInputs&, const void*, const float*,
                                         const GatedLinearAttentionGradients&, int);)

namespace {

void check(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
           const GatedLinearAttentionInputs& inputs) {
    require(shape.batch > 0 && shape.time > 0 && shape.heads > 0 && shape.key_dim > 0 && shape.value_dim > 0,
            "gated linear attention",
            "a size in the shape is zero or negative (nothing to compute); check the caller's "
            "tensors");
    require(options.gate_logit_normalizer > 0, "gated linear attention",
            "gate_logit_normalizer is not positive (gates would grow); pass 16");
    require(inputs.q.data && inputs.k.data && inputs.v.data && inputs.gate.data, "gated linear attention",
            "q, k, v or gate is null (every token needs them); pass the tensors' data");
}

}  // namespace

void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, int threads) {
    check(shape, options, inputs);
    require(outputs.o, "gated linear attention", "o is null (the output needs a place); pass the output's data");
    AMALGAM_VARIANT(Isa::automatic, gated_linear_attention_forward)(shape, options, inputs, outputs, threads);
}

void gated_linear_attention_decode(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                   const GatedLinearAttentionInputs& inputs, float* state, void* o, int threads) {
    check(shape, options, inputs);
    require(shape.time == 1, "gated linear attention",
            "decode was given several tokens (it takes one per sequence); use gated_linear_attention_forward");
    require(state != nullptr && o != nullptr, "gated linear attention",
            "state or o is null (decode writes both); pass their data");
    AMALGAM_VARIANT(Isa::automatic, gated_linear_attention_decode)(shape, options, inputs, state, o, threads);
}

void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const GatedLinearAttentionGradients& gradients,
                                     int threads) {
    check(shape, options, inputs);
    require(output_gradient && gradients.q.data && gradients.k.data && gradients.v.data && gradients.gate.data,
            "gated linear attention", "a gradient is null (all but the initial state's are needed); pass their data");
    auto& backward = AMALGAM_VARIANT(Isa::automatic, gated_linear_attention_backward);
    backward(shape, options, inputs, output_gradient, final_state_gradient, gradients, threads);
}

}  // namespace amalgam::kernels
