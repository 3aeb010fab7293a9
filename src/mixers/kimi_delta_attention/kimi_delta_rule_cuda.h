// SPDX-License-Identifier: Apache-2.0
// kimi_delta_rule by the CUDA kernels, in builds that have them.
#pragma once

#include "mixers/kimi_delta_attention/kimi_delta_call.h"

namespace amalgam {

/// True where the CUDA kernels take this call. Where the tensors are on a GPU and the kernels do not take them, or this
/// build has none, a warning says so once: the operations that run instead are many times slower.
bool runs_on_cuda_kernels(const KimiDeltaTokens& tokens, const KimiDeltaShape& shape);

/// As kimi_delta_rule; only where runs_on_cuda_kernels. `starts` as KimiDeltaCall has it; `state` is then of each
/// document.
at::Tensor kimi_delta_rule_on_cuda(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                   const KimiDeltaShape& shape, const at::Tensor& starts, at::Tensor* state);

/// As kimi_delta_rule_of_piece, likewise.
MixedPiece kimi_delta_rule_of_piece_on_cuda(const KimiDeltaTokens& tokens, const at::Tensor& a_log,
                                            const at::Tensor& dt_bias, const KimiDeltaShape& shape,
                                            const at::Tensor& starts, const at::Tensor& before);

/// A token of each sequence by the decoding kernel; only where runs_on_cuda_kernels.
void kimi_delta_decode_on_cuda(const KimiDeltaCall& call, const at::Tensor& states, const at::Tensor& o);

}  // namespace amalgam
