// SPDX-License-Identifier: Apache-2.0
// Root-mean-square normalisation of the last dimension (Zhang and Sennrich, arXiv 1910.07467), with an optional
// residual addition in front of it:
//     s = x + residual            (s = x without a residual)
//     rstd = (mean_i(s_i^2) + epsilon)^(-1/2)
//     y_i = s_i rstd w_i
// Backward, with g_i = dy_i w_i and h_i = s_i rstd:
//     ds_i = rstd (g_i - h_i mean_j(g_j h_j)) + dsum_i,    dw_i = sum over rows of dy_i h_i
//
// Shapes: x, residual, sum, y are [tokens, heads, width] views (heads contiguous within a token; heads = 1 for a plain
// norm, the number of heads for a norm of queries or keys inside a fused projection); weight [width]; rstd
// float32 [tokens, heads]. Everything but rstd, the weight and its gradient (float32) has the element type `type`;
// arithmetic and sums are float32, and s is rounded to `type` before it is normalised, so that forward and backward see
// the same s.
// Results do not depend on `threads`. y may be x itself; otherwise outputs must not overlap inputs.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct RmsNormForward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t heads = 1;
    std::int64_t width = 0;
    float epsilon = 1e-5F;
    ConstRows x;
    ConstRows residual = {};  // optional
    Rows sum = {};            // x + residual; required with a residual, may be the residual's own memory
    const float* weight = nullptr;
    Rows y;
    float* rstd = nullptr;  // optional in inference
};

struct RmsNormBackward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t heads = 1;
    std::int64_t width = 0;
    ConstRows y_gradient;
    ConstRows sum_gradient = {};  // optional: what reaches s by the residual stream; added to the result
    ConstRows x;                  // s when the forward had a residual
    const float* weight = nullptr;
    const float* rstd = nullptr;
    Rows x_gradient;                   // ds: the gradient of x and of the residual alike; may be sum_gradient's memory
    float* weight_gradient = nullptr;  // [width], overwritten; optional
};

void rms_norm_forward(const RmsNormForward& arguments, int threads);
void rms_norm_backward(const RmsNormBackward& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA. The weight gradient is the same for any
// state of the machine (no atomics); with it, the backward needs `workspace`, uninitialised device memory of so many
// bytes that is free again when the queued work is done.
void rms_norm_forward(const RmsNormForward& arguments, Stream stream);
std::int64_t rms_norm_backward_workspace(const RmsNormBackward& arguments);
void rms_norm_backward(const RmsNormBackward& arguments, void* workspace, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous [rows, width] arrays; residual and sum_gradient may be null.
void rms_norm_forward(std::int64_t rows, std::int64_t width, double epsilon, const double* x, const double* residual,
                      const double* weight, double* sum, double* y, double* rstd);
void rms_norm_backward(std::int64_t rows, std::int64_t width, const double* y_gradient, const double* sum_gradient,
                       const double* x, const double* weight, const double* rstd, double* x_gradient,
                       double* weight_gradient);

}  // namespace reference
}  // namespace amalgam::kernels
