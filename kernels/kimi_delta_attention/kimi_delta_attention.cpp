// SPDX-License-Identifier: Apache-2.0
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"

#include "kernels/gated_delta_rule/chunked_rule.h"
#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

using KimiChunkKernels = ChunkKernelsOf<KimiDeltaAttentionOptions>;
AMALGAM_VARIANTS(extern const KimiChunkKernels kimi_chunk_kernels;)

namespace {

constexpr ChunkedRule<KimiDeltaAttentionOptions> rule = {
    "Kimi Delta Attention", /*channel_gates=*/true,
    [](Isa isa) -> const KimiChunkKernels& { return AMALGAM_VARIANT(isa, kimi_chunk_kernels); }};

void check_bound(const KimiDeltaAttentionOptions& options) {
    require(options.lower_bound <= 0, rule.name,
            "lower_bound is positive (states would grow); pass a negative number, or 0 for the gate by softplus");
}

}  // namespace

size_t kimi_delta_attention_workspace_bytes(const KimiDeltaAttentionShape& shape,
                                            const KimiDeltaAttentionOptions& options) {
    return rule.workspace_bytes(shape, options);
}

void kimi_delta_attention_forward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                  const KimiDeltaAttentionInputs& inputs, const KimiDeltaAttentionOutputs& outputs,
                                  void* workspace) {
    check_bound(options);
    rule.forward(shape, options, inputs, outputs, workspace);
}

void kimi_delta_attention_backward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                   const KimiDeltaAttentionInputs& inputs, const void* output_gradient,
                                   const float* final_state_gradient, const void* workspace,
                                   const KimiDeltaAttentionGradients& gradients) {
    check_bound(options);
    rule.backward(shape, options, inputs, output_gradient, final_state_gradient, workspace, gradients);
}

void kimi_delta_attention_decode(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                 const KimiDeltaAttentionInputs& inputs, float* state, void* o) {
    check_bound(options);
    rule.decode(shape, options, inputs, state, o);
}

}  // namespace amalgam::kernels
