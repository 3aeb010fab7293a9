// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

/// How the kernels that mix tokens are given their rows.
namespace amalgam::kernels {

/// Read-only [batch, time, heads * dim] view whose tokens lie `token_stride` elements apart (heads * dim elements are
/// contiguous inside a token, sequences follow each other at time * token_stride). Several views may share one
/// fused projection output.
struct TokenView {
    const void* data = nullptr;
    int64_t token_stride = 0;
};

/// Writable counterpart of TokenView. Only heads * dim elements of each token are written.
struct MutableTokenView {
    void* data = nullptr;
    int64_t token_stride = 0;
};

}  // namespace amalgam::kernels
