// SPDX-License-Identifier: Apache-2.0
#include "kernels/alignment_loss/alignment_loss.h"
#include "kernels/cuda/norm_rows.cuh"

namespace amalgam::kernels::cuda {
namespace {

// A comparison that is false for NaN, so that NaN stays.
__device__ float at_least(float x, float bound) {
    return x < bound ? bound : x;
}

template <class Shape>
__global__ void __launch_bounds__(norm_threads) rows_kernel(AlignmentLoss a) {
    using T = typename Shape::Element;
    constexpr int n = Shape::n;
    const std::int64_t row = std::int64_t(blockIdx.x) * Shape::groups + threadIdx.x / Shape::lanes;
    const int width = int(a.width);
    const bool active = row < a.rows;
    const T* student = row_of<T>(a.student, active ? row : 0);
    const T* teacher = row_of<T>(a.teacher, active ? row : 0);
    Pack<T, n> held_student[Shape::kept], held_teacher[Shape::kept];
    const auto difference = [&](int i, int j, bool load_first, float(&d)[n], float(&t)[n]) {
        if (load_first) {
            held_student[j] = load_pack<T, n>(student + i);
            held_teacher[j] = load_pack<T, n>(teacher + i);
        }
        widen(held_student[j], d);
        widen(held_teacher[j], t);
#pragma unroll
        for (int k = 0; k < n; ++k) d[k] -= t[k];
    };
    float difference_squares = 0, teacher_squares = 0;
    if (active) {
        for_each_vector<Shape>(width, [&](int i, int j) {
            float d[n], t[n];
            difference(i, j, true, d, t);
#pragma unroll
            for (int k = 0; k < n; ++k) {
                difference_squares = fmaf(d[k], d[k], difference_squares);
                teacher_squares = fmaf(t[k], t[k], teacher_squares);
            }
        });
    }
    const float squares = row_sum<Shape>(difference_squares), norm = sqrtf(squares), root = sqrtf(float(width));
    const float divisor = at_least(row_sum<Shape>(teacher_squares), 1e-12F);
    if (!active) return;
    const bool by_norm = a.distance == Distance::norm;
    if (threadIdx.x % Shape::lanes == 0) a.loss[row] = by_norm ? norm / root : squares / divisor;
    const float factor = a.gradient_weight * (by_norm ? 1.0F / (root * at_least(norm, 1e-12F)) : 2.0F / divisor);
    T* gradient = row_of<T>(a.gradient, row);
    for_each_vector<Shape>(width, [&](int i, int j) {
        float d[n], t[n];
        difference(i, j, Shape::packs == 0, d, t);
#pragma unroll
        for (int k = 0; k < n; ++k) d[k] *= factor;
        store<n>(gradient + i, d);
    });
}

}  // namespace

void alignment_loss(const AlignmentLoss& a, Stream stream) {
    if (a.rows == 0) return;
    const bool all_aligned = aligned(a.student, a.type) && aligned(a.teacher, a.type) && aligned(a.gradient, a.type);
    with_element_type(a.type, [&](auto* element) {
        with_row_shape<std::remove_pointer_t<decltype(element)>, 3>(a.width, all_aligned, [&](auto shape) {
            using Shape = decltype(shape);
            rows_kernel<Shape><<<unsigned(Shape::blocks(a.rows)), norm_threads, 0, stream>>>(a);
        });
    });
    check_launch("alignment_loss");
}

}  // namespace amalgam::kernels::cuda
