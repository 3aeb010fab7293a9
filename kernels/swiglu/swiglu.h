// SPDX-License-Identifier: Apache-2.0
// The gate of a Llama feed-forward block (SwiGLU, Shazeer, arXiv 2002.05202):
//     y = silu(gate) up,  silu(a) = a sigmoid(a)
//     dgate = dy up sigmoid(gate) (1 + gate (1 - sigmoid(gate))),   dup = dy silu(gate)
//
// Shapes: all [tokens, width] views. Gate and up are usually the two halves of one fused row [tokens, 2 width]: pass
// {data, stride} and {data + width elements, stride}; the same for their gradients. Arithmetic is float32.
// Results do not depend on `threads`. The gradients may be written over gate and up; other overlaps are not allowed.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct SwigluForward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t width = 0;
    ConstRows gate;
    ConstRows up;
    Rows y;
};

struct SwigluBackward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t width = 0;
    ConstRows y_gradient;
    ConstRows gate;
    ConstRows up;
    Rows gate_gradient;
    Rows up_gradient;
};

void swiglu_forward(const SwigluForward& arguments, int threads);
void swiglu_backward(const SwigluBackward& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA.
void swiglu_forward(const SwigluForward& arguments, Stream stream);
void swiglu_backward(const SwigluBackward& arguments, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on `count` elements.
void swiglu_forward(std::int64_t count, const double* gate, const double* up, double* y);
void swiglu_backward(std::int64_t count, const double* y_gradient, const double* gate, const double* up,
                     double* gate_gradient, double* up_gradient);

}  // namespace reference
}  // namespace amalgam::kernels
