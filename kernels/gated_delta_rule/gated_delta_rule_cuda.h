// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cuda/stream.h"
#include "kernels/gated_delta_rule/gated_delta_rule.h"

/// The gated delta rule (gated_delta_rule.h says what that is) on Hopper GPUs, for bf16 activations and head dimensions
/// 64 and 128. All pointers are to device memory, except those inside the structures themselves, which are passed by
/// value. Every call only enqueues work on `stream`. Results repeat bit for bit. Of the options, `threads` and `isa`
/// are ignored. Errors of the launches are thrown as std::runtime_error; GatedDeltaRuleInputs::sequence_starts, which
/// lies in device memory, is not checked.
namespace amalgam::kernels::cuda {

/// True when the functions below take such a call.
bool gated_delta_rule_supports(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options);

/// Bytes of device memory that the forward pass must be given (1 KiB aligned), larger if a backward pass is to follow.
size_t gated_delta_rule_workspace_bytes(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                                        const GatedDeltaRuleInputs& inputs, bool for_backward);

void gated_delta_rule_forward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                              const GatedDeltaRuleInputs& inputs, const GatedDeltaRuleOutputs& outputs, void* workspace,
                              bool for_backward, Stream stream);

/// Bytes of device memory (1 KiB aligned) that the backward pass needs besides the forward pass's workspace.
size_t gated_delta_rule_scratch_bytes(const GatedDeltaRuleShape& shape);

/// As gated_delta_rule_backward. `workspace` is the one that the forward pass of the same inputs filled for it.
void gated_delta_rule_backward(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                               const GatedDeltaRuleInputs& inputs, const void* output_gradient,
                               const float* final_state_gradient, const void* workspace, void* scratch,
                               const GatedDeltaRuleGradients& gradients, Stream stream);

/// As kernels::gated_delta_rule_decode: one token per sequence, `state` is updated in place.
void gated_delta_rule_decode(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                             const GatedDeltaRuleInputs& inputs, float* state, void* o, Stream stream);

}  // namespace amalgam::kernels::cuda
