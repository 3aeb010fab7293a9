// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/cuda/stream.h"
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"

/// Kimi Delta Attention (kimi_delta_attention.h says what that is) on Hopper GPUs, for bf16 activations and head
/// dimensions 64 and 128. The functions, their pointers and their errors are as those of gated_delta_rule_cuda.h.
namespace amalgam::kernels::cuda {

/// True when the functions below take such a call.
bool kimi_delta_attention_supports(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options);

/// Bytes of device memory that the forward pass must be given (1 KiB aligned), larger if a backward pass is to follow.
size_t kimi_delta_attention_workspace_bytes(const KimiDeltaAttentionShape& shape,
                                            const KimiDeltaAttentionOptions& options,
                                            const KimiDeltaAttentionInputs& inputs, bool for_backward);

void kimi_delta_attention_forward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                  const KimiDeltaAttentionInputs& inputs, const KimiDeltaAttentionOutputs& outputs,
                                  void* workspace, bool for_backward, Stream stream);

/// Bytes of device memory (1 KiB aligned) that the backward pass needs besides the forward pass's workspace.
size_t kimi_delta_attention_scratch_bytes(const KimiDeltaAttentionShape& shape);

/// As kimi_delta_attention_backward. `workspace` is the one that the forward pass of the same inputs filled for it.
void kimi_delta_attention_backward(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                   const KimiDeltaAttentionInputs& inputs, const void* output_gradient,
                                   const float* final_state_gradient, const void* workspace, void* scratch,
                                   const KimiDeltaAttentionGradients& gradients, Stream stream);

/// As kernels::kimi_delta_attention_decode: one token per sequence, `state` is updated in place.
void kimi_delta_attention_decode(const KimiDeltaAttentionShape& shape, const KimiDeltaAttentionOptions& options,
                                 const KimiDeltaAttentionInputs& inputs, float* state, void* o, Stream stream);

}  // namespace amalgam::kernels::cuda
