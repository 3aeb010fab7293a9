// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding (Su et al., arXiv 2104.09864) in the rotate-half convention of the Hugging Face Llama
// models. With h = width / 2, j < h, and the table row p of the token:
//     y_j     = x_j     cos_{p,j}     - x_{j+h} sin_{p,j}
//     y_{j+h} = x_{j+h} cos_{p,j+h}   + x_j     sin_{p,j+h}
// The backward is the transpose, which for tables with equal halves is the rotation by the negative angle.
//
// Shapes: x, y [tokens, heads, width] views, heads contiguous within a token (queries and keys that lie side by side in
// a fused projection go in one call); width even; cos, sin float32 [positions, width], contiguous. Token i uses table
// row i mod positions, so tokens = batch x positions with the sequence as the inner dimension. Arithmetic is float32.
// Results do not depend on `threads`. y may be x itself (in place); other overlaps are not allowed.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct Rotary {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t heads = 1;
    std::int64_t width = 0;
    std::int64_t positions = 0;
    const float* cos = nullptr;
    const float* sin = nullptr;
    ConstRows x;  // dy in the backward
    Rows y;       // dx in the backward
};

void rotary_forward(const Rotary& arguments, int threads);
void rotary_backward(const Rotary& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA.
void rotary_forward(const Rotary& arguments, Stream stream);
void rotary_backward(const Rotary& arguments, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous [tokens, heads, width] arrays.
void rotary_forward(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t positions,
                    const double* cos, const double* sin, const double* x, double* y);
void rotary_backward(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t positions,
                     const double* cos, const double* sin, const double* y_gradient, double* x_gradient);

}  // namespace reference
}  // namespace amalgam::kernels
