// SPDX-License-Identifier: Apache-2.0
// Distillation loss of one row of student logits against one row of teacher logits, and its gradient in place
// (Hinton et al., arXiv 1503.02531). With p = softmax(logits / temperature), v over the vocabulary:
//     loss = temperature^2 sum_v p_teacher,v (log p_teacher,v - log p_student,v)
//     d loss / d student_v = temperature (p_student,v - p_teacher,v)
// The gradient is multiplied by `gradient_weight` (say 1 / tokens) and written over the student's logits; the losses
// are not.
//
// Shapes: student, teacher [rows, vocabulary] views of the element type `type`; loss float32 [rows].
// Sums run in float32 over blocks of columns and in double precision over the blocks, so large vocabularies (256k) lose
// nothing. A NaN or +infinity in either row makes that row's loss and gradient NaN; -infinity is probability zero.
// Results do not depend on `threads`.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct KlDivergence {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    float temperature = 1.0F;  // > 0
    ConstRows student;
    ConstRows teacher;
    float* loss = nullptr;
};

struct KlDivergenceGradient {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    float temperature = 1.0F;  // > 0
    float gradient_weight = 1.0F;
    Rows student;  // in: logits, out: gradient
    ConstRows teacher;
    float* loss = nullptr;
};

void kl_divergence(const KlDivergence& arguments, int threads);
void kl_divergence_with_gradient(const KlDivergenceGradient& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA.
void kl_divergence(const KlDivergence& arguments, Stream stream);
void kl_divergence_with_gradient(const KlDivergenceGradient& arguments, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous [rows, vocabulary] arrays; gradient (unweighted) may be null.
void kl_divergence(std::int64_t rows, std::int64_t vocabulary, double temperature, const double* student,
                   const double* teacher, double* loss, double* gradient);

}  // namespace reference
}  // namespace amalgam::kernels
