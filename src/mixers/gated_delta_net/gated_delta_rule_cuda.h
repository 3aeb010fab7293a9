// SPDX-License-Identifier: Apache-2.0
// gated_delta_mixing by the CUDA kernels, in builds that have them.
#pragma once

#include "mixers/gated_delta_net/gated_delta_call.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"

namespace amalgam {

/// True where the CUDA kernels take this call. Where the tensors are on a GPU and the kernels do not take them, or this
/// build has none, a warning says so once: the operations that run instead are many times slower.
bool runs_on_cuda_kernels(const at::Tensor& projected, const GatedDeltaShape& shape);

/// As gated_delta_mixing; only where runs_on_cuda_kernels. `starts` as GatedDeltaCall has it; `state` is then of each
/// document.
at::Tensor gated_delta_mixing_on_cuda(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                      const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& starts,
                                      at::Tensor* state);

/// As gated_delta_mixing_of_piece, likewise.
MixedPiece gated_delta_mixing_of_piece_on_cuda(const at::Tensor& projected, const at::Tensor& a_log,
                                               const at::Tensor& dt_bias, const at::Tensor& norm,
                                               const GatedDeltaShape& shape, const at::Tensor& starts,
                                               const at::Tensor& before);

/// A token of each sequence by the decoding kernel; only where runs_on_cuda_kernels.
void gated_delta_decode_on_cuda(const GatedDeltaCall& call, const at::Tensor& states, const at::Tensor& o);

}  // namespace amalgam
