// SPDX-License-Identifier: Apache-2.0
// How kernels are given their rows of tokens: views of a matrix, one pointer and the distance between tokens. Inside a
// token the elements are contiguous, so a view may be a slice of the output of a fused projection, which several views
// then share. Of a tensor [batch, time, width], row batch * time + t is token t of a sequence. The type and the number
// of elements stand with the operation that takes the view; a view whose data is null stands for none.
#pragma once

#include <cstdint>

namespace amalgam::kernels {

struct ConstRows {
    const void* data = nullptr;
    std::int64_t stride = 0;  // elements from one token to the next

    explicit operator bool() const { return data != nullptr; }
};

/// Rows to write: only the width of the view, nothing between the tokens.
struct Rows {
    void* data = nullptr;
    std::int64_t stride = 0;  // elements from one token to the next

    explicit operator bool() const { return data != nullptr; }
    operator ConstRows() const { return {data, stride}; }
};

}  // namespace amalgam::kernels
