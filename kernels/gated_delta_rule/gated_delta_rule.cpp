// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/gated_delta_rule.h"

#include "kernels/gated_delta_rule/chunked_rule.h"
#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(extern const ChunkKernels chunk_kernels;)

namespace {

constexpr ChunkedRule<GatedDeltaRuleOptions> rule = {
    "gated delta rule", /*channel_gates=*/false,
    [](Isa isa) -> const ChunkKernels& { return AMALGAM_VARIANT(isa, chunk_kernels); }};

}  // namespace

size_t gated_delta_rule_workspace_bytes(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options) {
    return rule.workspace_bytes(shape, options);
}

void gated_delta_rule_forward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                              const GatedDeltaRuleInputs& inputs, const GatedDeltaRuleOutputs& outputs,
                              void* workspace) {
    rule.forward(shape, options, inputs, outputs, workspace);
}

void gated_delta_rule_backward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                               const GatedDeltaRuleInputs& inputs, const void* output_gradient,
                               const float* final_state_gradient, const void* workspace,
                               const GatedDeltaRuleGradients& gradients) {
    rule.backward(shape, options, inputs, output_gradient, final_state_gradient, workspace, gradients);
}

void gated_delta_rule_decode(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                             const GatedDeltaRuleInputs& inputs, float* state, void* o) {
    rule.decode(shape, options, inputs, state, o);
}

}  // namespace amalgam::kernels
