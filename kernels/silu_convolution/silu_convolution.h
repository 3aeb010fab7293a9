// SPDX-License-Identifier: Apache-2.0
// Short causal convolution over time, one filter of W taps per channel, with an optional SiLU after it (the short
// convolution of Mamba and of Gated DeltaNet):
//     u_{t,c} = sum_{j<W} w_{c,j} x_{t-W+1+j,c},   y = silu(u) or u
// so that the last tap multiplies the present token, as in a torch Conv1d with left padding. Backward, with
// du = dy silu'(u) (or dy):
//     dx_{t,c} = sum_j w_{c,j} du_{t+W-1-j,c},   dw_{c,j} = sum_t du_{t,c} x_{t-W+1+j,c}
//
// Shapes: x, y [batch, time, channels] views in which token (b, t) is row b time + t; weight and its
// gradient float32 [channels, W], contiguous. W from 2 to 4.
// State: [batch, W - 1, channels], contiguous, element type `type`: the last W - 1 inputs, oldest first (time before
// channels, so that a state is W - 1 rows of x). A null initial state means zeros. With `slot`, [batch], the state of
// sequence b is slot[b] of more states, no slot twice; a sequence of negative slot begins with zeros and leaves none. The backward takes an initial state
// as a constant and ignores what the final state may have fed.
// Arithmetic and sums are float32. Results do not depend on `threads`. Outputs must not overlap inputs, except that a
// final state may be the initial state's memory.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct SiluConvolutionForward {
    ElementType type;
    std::int64_t batch = 1;
    std::int64_t time = 0;
    std::int64_t channels = 0;
    int taps = 4;
    bool silu = true;
    ConstRows x;
    const float* weight = nullptr;
    const void* initial_state = nullptr;  // optional
    Rows y;
    void* final_state = nullptr;  // optional; with time = 1 and both states this is a decoding step
    const std::int32_t* slot = nullptr;  // optional
};

struct SiluConvolutionBackward {
    ElementType type;
    std::int64_t batch = 1;
    std::int64_t time = 0;
    std::int64_t channels = 0;
    int taps = 4;
    bool silu = true;
    ConstRows y_gradient;
    ConstRows x;
    const float* weight = nullptr;
    const void* initial_state = nullptr;  // optional, as in the forward
    Rows x_gradient;
    float* weight_gradient = nullptr;  // overwritten; optional
};

void silu_convolution_forward(const SiluConvolutionForward& arguments, int threads);
void silu_convolution_backward(const SiluConvolutionBackward& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA. The weight gradient is the same for any
// state of the machine (no atomics); with it, the backward needs `workspace`, uninitialised device memory of so many
// bytes that is free again when the queued work is done.
void silu_convolution_forward(const SiluConvolutionForward& arguments, Stream stream);
std::int64_t silu_convolution_backward_workspace(const SiluConvolutionBackward& arguments);
void silu_convolution_backward(const SiluConvolutionBackward& arguments, void* workspace, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous arrays; initial_state may be null.
void silu_convolution_forward(std::int64_t batch, std::int64_t time, std::int64_t channels, int taps, bool silu,
                              const double* x, const double* weight, const double* initial_state, double* y);
void silu_convolution_backward(std::int64_t batch, std::int64_t time, std::int64_t channels, int taps, bool silu,
                               const double* y_gradient, const double* x, const double* weight,
                               const double* initial_state, double* x_gradient, double* weight_gradient);

}  // namespace reference
}  // namespace amalgam::kernels
