// SPDX-License-Identifier: Apache-2.0
// Only in builds with CUDA: what kernels of our own take from LibTorch, its stream and its memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAStream.h>

#include "kernels/cuda/stream.h"

namespace amalgam {

/// LibTorch's current stream of the tensor's device.
inline kernels::cuda::Stream stream_of(const at::Tensor& t) {
    return c10::cuda::getCurrentCUDAStream(t.device().index()).stream();
}

/// Memory on the device of `like`.
inline at::Tensor device_bytes(const at::Tensor& like, size_t bytes) {
    return at::empty({int64_t(bytes)}, like.options().dtype(at::kByte));
}

}  // namespace amalgam
