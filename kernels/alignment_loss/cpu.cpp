// SPDX-License-Identifier: Apache-2.0
#include "kernels/alignment_loss/alignment_loss.h"
#include "kernels/elementwise/blocks.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

// A comparison that is false for NaN, so that NaN stays.
float at_least(float x, float bound) {
    return x < bound ? bound : x;
}

template <class T>
void one_row(const AlignmentLoss& a, std::int64_t row) {
    const T* student = row_of<T>(a.student, row);
    const T* teacher = row_of<T>(a.teacher, row);
    T* gradient = row_of<T>(a.gradient, row);
    Vector difference_squares = zero(), teacher_squares = zero();
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        const Vector t = load(teacher + i, part), d = load(student + i, part) - t;
        difference_squares = fma(d, d, difference_squares);
        teacher_squares = fma(t, t, teacher_squares);
    });
    const float squares = sum(difference_squares), norm = __builtin_sqrtf(squares);
    const float root = __builtin_sqrtf(static_cast<float>(a.width));
    const float divisor = at_least(sum(teacher_squares), 1e-12F);
    const bool by_norm = a.distance == Distance::norm;
    a.loss[row] = by_norm ? norm / root : squares / divisor;
    const Vector factor =
        broadcast(a.gradient_weight * (by_norm ? 1.0F / (root * at_least(norm, 1e-12F)) : 2.0F / divisor));
    for_each_vector(a.width, [&](std::int64_t i, auto part) {
        store(gradient + i, (load(student + i, part) - load(teacher + i, part)) * factor, part);
    });
}

}  // namespace

void alignment_loss(const AlignmentLoss& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t row = 0; row < a.rows; ++row) one_row<T>(a, row);
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
