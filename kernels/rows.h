// SPDX-License-Identifier: Apache-2.0
// Views of a matrix of tokens for the kernels: one pointer and the distance between tokens. Inside a token the elements
// are contiguous, so a view may be a slice of the output of a fused projection.
#pragma once

#include <cstdint>

namespace amalgam::kernels {

struct ConstRows {
    const void* data = nullptr;
    std::int64_t stride = 0;  // elements from one token to the next

    explicit operator bool() const { return data != nullptr; }
};

struct Rows {
    void* data = nullptr;
    std::int64_t stride = 0;  // elements from one token to the next

    explicit operator bool() const { return data != nullptr; }
    operator ConstRows() const { return {data, stride}; }
};

}  // namespace amalgam::kernels
