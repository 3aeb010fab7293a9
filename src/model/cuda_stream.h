// SPDX-License-Identifier: Apache-2.0
// Only in builds with CUDA: the stream that kernels of our own are queued on beside LibTorch's.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda/stream.h"

namespace amalgam {

/// LibTorch's current stream of the tensor's device.
inline kernels::cuda::Stream stream_of(const at::Tensor& t) {
    return c10::cuda::getCurrentCUDAStream(t.device().index()).stream();
}

}  // namespace amalgam
