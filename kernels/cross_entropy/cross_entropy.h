// SPDX-License-Identifier: Apache-2.0
// Next-token loss of rows of logits, and its gradient in place:
//     loss = log sum_v exp(logit_v) - logit_target
//     d loss / d logit_v = softmax_v - [v = target]
// The gradient is multiplied by `gradient_weight` (say 1 / tokens) and written over the logits; the losses are not.
//
// Shapes: logits [rows, vocabulary] view of the element type `type`; targets int64 [rows]; loss float32 [rows];
// correct uint8 [rows], 1 where the target has the highest logit (the lowest index wins a tie), optional.
// A row whose target is negative is ignored: loss 0, gradient 0, correct 0. Targets must be below `vocabulary`.
// Sums run in float32 over blocks of columns and in double precision over the blocks. A NaN or +infinity in a row makes
// its loss and gradient NaN. Results do not depend on `threads`.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct CrossEntropy {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    ConstRows logits;
    const std::int64_t* targets = nullptr;
    float* loss = nullptr;
    std::uint8_t* correct = nullptr;  // optional
};

struct CrossEntropyGradient {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t vocabulary = 0;
    float gradient_weight = 1.0F;
    Rows logits;  // in: logits, out: gradient
    const std::int64_t* targets = nullptr;
    float* loss = nullptr;
    std::uint8_t* correct = nullptr;  // optional
};

void cross_entropy(const CrossEntropy& arguments, int threads);
void cross_entropy_with_gradient(const CrossEntropyGradient& arguments, int threads);

namespace cuda {

// On device memory, queued on `stream`; only in builds with CUDA. A target that is not below the
// vocabulary size makes the row's loss and gradient NaN.
void cross_entropy(const CrossEntropy& arguments, Stream stream);
void cross_entropy_with_gradient(const CrossEntropyGradient& arguments, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on a contiguous [rows, vocabulary] array; gradient (unweighted) may be null.
void cross_entropy(std::int64_t rows, std::int64_t vocabulary, const double* logits, const std::int64_t* targets,
                   double* loss, double* gradient);

}  // namespace reference
}  // namespace amalgam::kernels
