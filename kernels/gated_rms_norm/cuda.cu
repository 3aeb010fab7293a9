// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/gated_rms_norm/gated_rms_norm.h"

namespace amalgam::kernels::cuda {
namespace {

template <class Shape>
__global__ void __launch_bounds__(norm_threads) forward_kernel(GatedRmsNormForward a, int rows) {
    using T = typename Shape::Element;
    constexpr int n = Shape::n;
    const int row = int(blockIdx.x) * Shape::groups + int(threadIdx.x) / Shape::lanes, width = int(a.width);
    const bool active = row < rows;
    const int heads = int(a.heads), token = active ? row / heads : 0, offset = active ? row % heads * width : 0;
    const T* o = row_of<T>(a.o, token) + offset;
    const T* z = a.z.data != nullptr ? row_of<T>(a.z, token) + offset : nullptr;
    T* y = row_of<T>(a.y, token) + offset;
    Pack<T, n> held_o[Shape::kept], held_z[Shape::kept];
    const auto hold = [&](int i, int j) {
        held_o[j] = load_pack<T, n>(o + i);
        if (z != nullptr) held_z[j] = load_pack_anywhere<T, n>(z + i);
    };
    float squares = 0;
    if (active) {
        for_each_vector<Shape>(width, [&](int i, int j) {
            hold(i, j);
            float s[n];
            widen(held_o[j], s);
#pragma unroll
            for (int k = 0; k < n; ++k) squares = fmaf(s[k], s[k], squares);
        });
    }
    const float rstd = rsqrtf(row_sum<Shape>(squares) / float(width) + a.epsilon);
    if (!active) return;
    if (a.rstd != nullptr && threadIdx.x % Shape::lanes == 0) a.rstd[row] = rstd;
    for_each_vector<Shape>(width, [&](int i, int j) {
        if constexpr (Shape::packs == 0) hold(i, 0);
        float x[n];
        widen(held_o[j], x);
        if (a.weight != nullptr) {
            float weight[n];
            load_floats(a.weight + i, weight);
#pragma unroll
            for (int k = 0; k < n; ++k) x[k] *= rstd * weight[k];
        }
        if (z != nullptr) {
            float gate[n];
            widen(held_z[j], gate);
#pragma unroll
            for (int k = 0; k < n; ++k) x[k] *= gate[k] * sigmoid<T>(gate[k]);
        }
        store<n>(y + i, x);
    });
}

template <class Shape>
__global__ void __launch_bounds__(norm_threads, 2) backward_kernel(GatedRmsNormBackward a, int rows, float* partial) {
    using T = typename Shape::Element;
    constexpr int n = Shape::n;
    const int width = int(a.width), heads = int(a.heads);
    WeightGradient<Shape> weight_gradient(partial, width);
    for (int first = int(blockIdx.x) * Shape::groups; first < rows; first += int(gridDim.x) * Shape::groups) {
        const int row = first + int(threadIdx.x) / Shape::lanes;
        const bool active = row < rows;
        const int token = active ? row / heads : 0, offset = active ? row % heads * width : 0;
        const T* y_gradient = row_of<T>(a.y_gradient, token) + offset;
        const T* o = row_of<T>(a.o, token) + offset;
        const T* z = a.z.data != nullptr ? row_of<T>(a.z, token) + offset : nullptr;
        T* o_gradient = row_of<T>(a.o_gradient, token) + offset;
        T* z_gradient = z != nullptr ? row_of<T>(a.z_gradient, token) + offset : nullptr;
        const float rstd = active && a.weight != nullptr ? a.rstd[row] : 1.0F;

        // Gradient g of h, and h, of n elements; the first time also what needs no mean.
        const auto terms = [&](int i, int j, bool first_time, float(&g)[n], float(&h)[n]) {
            float weight[n];
#pragma unroll
            for (int k = 0; k < n; ++k) weight[k] = 1;
            if (a.weight != nullptr) load_floats(a.weight + i, weight);
            load<n>(y_gradient + i, g);
            load<n>(o + i, h);
#pragma unroll
            for (int k = 0; k < n; ++k) h[k] *= rstd;
            if (z != nullptr) {
                float dz[n];
                widen(load_pack_anywhere<T, n>(z + i), dz);
#pragma unroll
                for (int k = 0; k < n; ++k) {
                    const float s = sigmoid<T>(dz[k]), silu = dz[k] * s;
                    dz[k] = g[k] * h[k] * weight[k] * fmaf(silu, 1.0F - s, s);
                    g[k] *= silu;
                }
                if (first_time) store_pack_anywhere(z_gradient + i, narrowed<T, n>(dz));
            }
            if (first_time && a.weight != nullptr) {
                float dw[n];
#pragma unroll
                for (int k = 0; k < n; ++k) dw[k] = g[k] * h[k];
                weight_gradient.add(i, j, dw);
            }
#pragma unroll
            for (int k = 0; k < n; ++k) g[k] *= weight[k];
        };
        float g[Shape::kept][n], h[Shape::kept][n], products = 0;
        if (active) {
            for_each_vector<Shape>(width, [&](int i, int j) {
                terms(i, j, true, g[j], h[j]);
#pragma unroll
                for (int k = 0; k < n; ++k) products = fmaf(g[j][k], h[j][k], products);
            });
        }
        const float mean = a.weight != nullptr ? row_sum<Shape>(products) / float(width) : 0.0F;
        if (!active) continue;
        for_each_vector<Shape>(width, [&](int i, int j) {
            if constexpr (Shape::packs == 0) terms(i, j, false, g[0], h[0]);
#pragma unroll
            for (int k = 0; k < n; ++k) g[j][k] = rstd * (g[j][k] - h[j][k] * mean);
            store<n>(o_gradient + i, g[j]);
        });
    }
    weight_gradient.write();
}

template <class Body>
void with_shape(const GatedRmsNormForward& a, Body&& body) {
    const bool all_aligned = aligned(a.o, a.type) && aligned(a.y, a.type) && aligned(a.weight);
    with_element_type(a.type, [&](auto* element) {
        with_row_shape<std::remove_pointer_t<decltype(element)>, 1>(a.width, all_aligned, body);
    });
}

template <class Body>
void with_shape(const GatedRmsNormBackward& a, Body&& body) {
    const bool all_aligned =
        aligned(a.y_gradient, a.type) && aligned(a.o, a.type) && aligned(a.o_gradient, a.type) && aligned(a.weight);
    with_element_type(a.type, [&](auto* element) {
        with_row_shape<std::remove_pointer_t<decltype(element)>, 1>(a.width, all_aligned, body);
    });
}

bool wants_weight(const GatedRmsNormBackward& a) {
    return a.weight != nullptr && a.weight_gradient != nullptr;
}

}  // namespace

void gated_rms_norm_forward(const GatedRmsNormForward& a, Stream stream) {
    const std::int64_t rows = a.tokens * a.heads;
    if (rows == 0) return;
    with_shape(a, [&](auto shape) {
        using Shape = decltype(shape);
        forward_kernel<Shape><<<unsigned(Shape::blocks(rows)), norm_threads, 0, stream>>>(a, int(rows));
    });
    check_launch("gated_rms_norm");
}

std::int64_t gated_rms_norm_backward_workspace(const GatedRmsNormBackward& a) {
    std::int64_t bytes = 0;
    if (!wants_weight(a)) return bytes;
    with_shape(a, [&](auto shape) { bytes = shape.backward_blocks(a.tokens * a.heads) * a.width * 4; });
    return bytes;
}

void gated_rms_norm_backward(const GatedRmsNormBackward& a, void* workspace, Stream stream) {
    const std::int64_t rows = a.tokens * a.heads;
    float* partial = wants_weight(a) ? static_cast<float*>(workspace) : nullptr;
    std::int64_t blocks = 0;
    with_shape(a, [&](auto shape) {
        using Shape = decltype(shape);
        blocks = Shape::backward_blocks(rows);
        if (blocks > 0) backward_kernel<Shape><<<unsigned(blocks), norm_threads, 0, stream>>>(a, int(rows), partial);
    });
    check_launch("gated_rms_norm");
    if (partial != nullptr) sum_partials(partial, blocks, a.width, a.weight_gradient, stream);
}

}  // namespace amalgam::kernels::cuda
