// SPDX-License-Identifier: Apache-2.0
// Output norm of a linear-attention head, gated by a second projection (the norm comes first, as in Gated DeltaNet,
// arXiv 2412.06464):
//     y_i = n_i silu(z_i),  n_i = o_i rstd w_i,  rstd = (mean_i(o_i^2) + epsilon)^(-1/2),  silu(z) = z / (1 + e^-z)
// Without a norm (weight null) n = o; without a gate (z null) y = n.
// Backward, with g_i = dy_i silu(z_i) w_i and h_i = o_i rstd:
//     do_i = rstd (g_i - h_i mean_j(g_j h_j)),   dz_i = dy_i n_i silu'(z_i),   dw_i = sum over rows of dy_i silu(z_i)
//     h_i
//
// Shapes: o, z, y are [tokens, heads, width] views (heads contiguous within a token; z usually lies inside a fused
// projection's output, and dz inside its gradient); weight [width], shared by the heads; rstd float32 [tokens, heads].
// Everything but rstd, the weight and its gradient (float32) has the element type `type`; arithmetic and sums are
// float32.
// Results do not depend on `threads`. Outputs must not overlap inputs.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct GatedRmsNormForward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t heads = 1;
    std::int64_t width = 0;
    float epsilon = 1e-5F;
    ConstRows o;
    ConstRows z = {};               // null: no gate
    const float* weight = nullptr;  // null: no norm
    Rows y;
    float* rstd = nullptr;  // optional in inference and without a norm
};

struct GatedRmsNormBackward {
    ElementType type;
    std::int64_t tokens = 0;
    std::int64_t heads = 1;
    std::int64_t width = 0;
    ConstRows y_gradient;
    ConstRows o;
    ConstRows z = {};               // null: no gate
    const float* weight = nullptr;  // null: no norm
    const float* rstd = nullptr;    // from the forward; unused without a norm
    Rows o_gradient;
    Rows z_gradient = {};              // required with a gate
    float* weight_gradient = nullptr;  // [width], overwritten; optional
};

void gated_rms_norm_forward(const GatedRmsNormForward& arguments, int threads);
void gated_rms_norm_backward(const GatedRmsNormBackward& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA. The weight gradient is the same for any
// state of the machine (no atomics); with it, the backward needs `workspace`, uninitialised device memory of so many
// bytes that is free again when the queued work is done.
void gated_rms_norm_forward(const GatedRmsNormForward& arguments, Stream stream);
std::int64_t gated_rms_norm_backward_workspace(const GatedRmsNormBackward& arguments);
void gated_rms_norm_backward(const GatedRmsNormBackward& arguments, void* workspace, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous [rows, width] arrays; z or weight may be null.
void gated_rms_norm_forward(std::int64_t rows, std::int64_t width, double epsilon, const double* o, const double* z,
                            const double* weight, double* y, double* rstd);
void gated_rms_norm_backward(std::int64_t rows, std::int64_t width, const double* y_gradient, const double* o,
                             const double* z, const double* weight, const double* rstd, double* o_gradient,
                             double* z_gradient, double* weight_gradient);

}  // namespace reference
}  // namespace amalgam::kernels
