// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/norm_rows.cuh"
#include "kernels/rms_norm/rms_norm.h"

namespace amalgam::kernels::cuda {
namespace {

template <class Shape>
__global__ void __launch_bounds__(norm_threads) forward_kernel(const __grid_constant__ RmsNormForward a, int rows) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    using T = typename Shape::Element;
    constexpr int n = Shape::n;
    const int row = int(blockIdx.x) * Shape::groups + int(threadIdx.x) / Shape::lanes, width = int(a.width);
    const bool active = row < rows;
    const int heads = int(a.heads), token = active ? row / heads : 0, offset = active ? row % heads * width : 0;
    const T* x = row_of<T>(a.x, token) + offset;
    const T* residual = a.residual.data != nullptr ? row_of<T>(a.residual, token) + offset : nullptr;
    T* sum = residual != nullptr ? row_of<T>(a.sum, token) + offset : nullptr;
    T* y = row_of<T>(a.y, token) + offset;
    Pack<T, n> held[Shape::kept];
    float squares = 0;
    if (active) {
        for_each_vector<Shape>(width, [&](int i, int j) {
            held[j] = load_pack<T, n>(x + i);
            float s[n];
            widen(held[j], s);
            if (residual != nullptr) {
                float r[n];
                load<n>(residual + i, r);
#pragma unroll
                for (int k = 0; k < n; ++k) s[k] += r[k];
                held[j] = narrowed<T, n>(s);  // what is normalised is the sum as it is stored
                widen(held[j], s);
                store<n>(sum + i, s);
            }
#pragma unroll
            for (int k = 0; k < n; ++k) squares = fmaf(s[k], s[k], squares);
        });
    }
    const float rstd = rsqrtf(row_sum<Shape>(squares) / float(width) + a.epsilon);
    if (!active) return;
    if (a.rstd != nullptr && threadIdx.x % Shape::lanes == 0) a.rstd[row] = rstd;
    for_each_vector<Shape>(width, [&](int i, int j) {
        if constexpr (Shape::packs == 0) held[0] = load_pack<T, n>((residual != nullptr ? sum : x) + i);
        float s[n], weight[n];
        widen(held[j], s);
        load_floats(a.weight + i, weight);
#pragma unroll
        for (int k = 0; k < n; ++k) s[k] *= rstd * weight[k];
        store<n>(y + i, s);
    });
}

template <class Shape>
__global__ void __launch_bounds__(norm_threads, 2) backward_kernel(RmsNormBackward a, int rows, float* partial) {
    using T = typename Shape::Element;
    constexpr int n = Shape::n;
    const int width = int(a.width), heads = int(a.heads);
    WeightGradient<Shape> weight_gradient(partial, width);
    for (int first = int(blockIdx.x) * Shape::groups; first < rows; first += int(gridDim.x) * Shape::groups) {
        const int row = first + int(threadIdx.x) / Shape::lanes;
        const bool active = row < rows;
        const int token = active ? row / heads : 0, offset = active ? row % heads * width : 0;
        const T* y_gradient = row_of<T>(a.y_gradient, token) + offset;
        const T* x = row_of<T>(a.x, token) + offset;
        const T* sum_gradient = a.sum_gradient.data != nullptr ? row_of<T>(a.sum_gradient, token) + offset : nullptr;
        T* x_gradient = row_of<T>(a.x_gradient, token) + offset;
        const float rstd = active ? a.rstd[row] : 0.0F;
        Pack<T, n> held_dy[Shape::kept], held_x[Shape::kept], held_sum[Shape::kept];
        const auto hold = [&](int i, int j) {
            held_dy[j] = load_pack<T, n>(y_gradient + i);
            held_x[j] = load_pack<T, n>(x + i);
            if (sum_gradient != nullptr) held_sum[j] = load_pack<T, n>(sum_gradient + i);
        };
        float products = 0;
        if (active) {
            if constexpr (Shape::packs > 0) for_each_vector<Shape>(width, hold);
            for_each_vector<Shape>(width, [&](int i, int j) {
                if constexpr (Shape::packs == 0) hold(i, 0);
                float dy[n], h[n], weight[n];
                widen(held_dy[j], dy);
                widen(held_x[j], h);
                load_floats(a.weight + i, weight);
#pragma unroll
                for (int k = 0; k < n; ++k) {
                    h[k] *= rstd;
                    products = fmaf(dy[k] * weight[k], h[k], products);
                    h[k] *= dy[k];
                }
                weight_gradient.add(i, j, h);
            });
        }
        const float mean = row_sum<Shape>(products) / float(width);
        if (!active) continue;
        for_each_vector<Shape>(width, [&](int i, int j) {
            if constexpr (Shape::packs == 0) hold(i, 0);
            float dx[n], h[n], weight[n];
            widen(held_dy[j], dx);
            widen(held_x[j], h);
            load_floats(a.weight + i, weight);
#pragma unroll
            for (int k = 0; k < n; ++k) dx[k] = rstd * (dx[k] * weight[k] - h[k] * rstd * mean);
            if (sum_gradient != nullptr) {
                float ds[n];
                widen(held_sum[j], ds);
#pragma unroll
                for (int k = 0; k < n; ++k) dx[k] += ds[k];
            }
            store<n>(x_gradient + i, dx);
        });
    }
    weight_gradient.write();
}

template <class Body>
void with_shape(const RmsNormForward& a, Body&& body) {
    const bool all_aligned = aligned(a.x, a.type) && aligned(a.residual, a.type) && aligned(a.sum, a.type) &&
                             aligned(a.y, a.type) && aligned(a.weight);
    with_element_type(a.type, [&](auto* element) {
        with_row_shape<std::remove_pointer_t<decltype(element)>, 3>(a.width, all_aligned, body);
    });
}

template <class Body>
void with_shape(const RmsNormBackward& a, Body&& body) {
    const bool all_aligned = aligned(a.y_gradient, a.type) && aligned(a.sum_gradient, a.type) && aligned(a.x, a.type) &&
                             aligned(a.x_gradient, a.type) && aligned(a.weight);
    with_element_type(a.type, [&](auto* element) {
        with_row_shape<std::remove_pointer_t<decltype(element)>, 3>(a.width, all_aligned, body);
    });
}

}  // namespace

void rms_norm_forward(const RmsNormForward& a, Stream stream) {
    const std::int64_t rows = a.tokens * a.heads;
    if (rows == 0) return;
    with_shape(a, [&](auto shape) {
        using Shape = decltype(shape);
        launch_early(forward_kernel<Shape>, unsigned(Shape::blocks(rows)), norm_threads, 0, 1, stream, "rms_norm", a,
                     int(rows));
    });
}

std::int64_t rms_norm_backward_workspace(const RmsNormBackward& a) {
    std::int64_t bytes = 0;
    if (a.weight_gradient == nullptr) return bytes;
    with_shape(a, [&](auto shape) { bytes = shape.backward_blocks(a.tokens * a.heads) * a.width * 4; });
    return bytes;
}

void rms_norm_backward(const RmsNormBackward& a, void* workspace, Stream stream) {
    const std::int64_t rows = a.tokens * a.heads;
    float* partial = a.weight_gradient != nullptr ? static_cast<float*>(workspace) : nullptr;
    std::int64_t blocks = 0;
    with_shape(a, [&](auto shape) {
        using Shape = decltype(shape);
        blocks = Shape::backward_blocks(rows);
        if (blocks > 0) backward_kernel<Shape><<<unsigned(blocks), norm_threads, 0, stream>>>(a, int(rows), partial);
    });
    check_launch("rms_norm");
    if (partial != nullptr) sum_partials(partial, blocks, a.width, a.weight_gradient, stream);
}

}  // namespace amalgam::kernels::cuda
