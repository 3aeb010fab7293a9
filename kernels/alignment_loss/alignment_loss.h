// SPDX-License-Identifier: Apache-2.0
// How far a student's output is from the teacher's, token by token, and the gradient. With the difference d = student -
// teacher of one row of `width` elements:
//     norm:      loss = |d| / sqrt(width),                gradient = d / (sqrt(width) max(|d|, 1e-12))
//     relative:  loss = |d|^2 / max(|teacher|^2, 1e-12),  gradient = 2 d / max(|teacher|^2, 1e-12)
// The gradient is multiplied by `gradient_weight` (say 1 / tokens); the losses are not.
//
// Shapes: student, teacher, gradient [rows, width] views of the element type `type`; loss float32 [rows]. Arithmetic
// and sums are float32. Results do not depend on `threads`. The gradient may take the student's place; other overlaps
// are not allowed.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

enum class Distance { norm, relative };

struct AlignmentLoss {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t width = 0;
    Distance distance = Distance::norm;
    float gradient_weight = 1.0F;
    ConstRows student;
    ConstRows teacher;
    Rows gradient;
    float* loss = nullptr;
};

void alignment_loss(const AlignmentLoss& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA.
void alignment_loss(const AlignmentLoss& arguments, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous [rows, width] arrays; the gradient is not weighted.
void alignment_loss(std::int64_t rows, std::int64_t width, Distance distance, const double* student,
                    const double* teacher, double* gradient, double* loss);

}  // namespace reference
}  // namespace amalgam::kernels
