// SPDX-License-Identifier: Apache-2.0
// The stream that CUDA kernels are queued on, declared so that callers need no CUDA header.
#pragma once

struct CUstream_st;

namespace amalgam::kernels::cuda {

using Stream = CUstream_st*;  // cudaStream_t

}  // namespace amalgam::kernels::cuda
