// SPDX-License-Identifier: Apache-2.0
// One AdamW step (Loshchilov and Hutter, arXiv 1711.05101) over a flat range of parameters, and the sum of squares that
// the clipping of the gradient norm needs. At step t (counted from 1), with g = gradient_multiplier gradient:
//     m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2
//     p <- (1 - learning_rate weight_decay) p - learning_rate / (1 - beta1^t) m / (sqrt(v / (1 - beta2^t)) + epsilon)
// which is what torch.optim.AdamW computes.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/cuda/stream.h"

namespace amalgam::kernels {

struct AdamwStep {
    std::int64_t count = 0;
    std::int64_t step = 1;  // counted from 1
    double learning_rate = 0;
    double beta1 = 0.9;
    double beta2 = 0.95;
    double epsilon = 1e-8;
    double weight_decay = 0;         // decoupled
    double gradient_multiplier = 1;  // clip coefficient, 1 / loss scale, ...
    const float* gradient = nullptr;
    float* master = nullptr;
    float* exp_avg = nullptr;
    float* exp_avg_sq = nullptr;
    void* bfloat16_copy = nullptr;  // [count] bfloat16 elements, rounded to nearest even; optional
};

void adamw_step(const AdamwStep& arguments, int threads);

// Sum of squares in double precision. The result does not depend on `threads`; NaN and infinity propagate.
double sum_of_squares(const float* values, std::int64_t count, int threads);

namespace cuda {

// One of the parameters that a step updates together; device memory. The copy is optional, the learning rate its own.
struct AdamwParameter {
    std::int64_t count = 0;
    double learning_rate = 0;
    const float* gradient = nullptr;
    float* master = nullptr;
    float* exp_avg = nullptr;
    float* exp_avg_sq = nullptr;
    void* bfloat16_copy = nullptr;
};

// What a step does with the global gradient norm without the host knowing it. With `squares` (device memory, the sum
// over all gradients) the gradients are scaled to norm `clip` where theirs is larger (0: never), and where the norm is
// not finite nothing is updated.
struct GradientClip {
    const double* squares = nullptr;
    double clip = 0;
};

// The step over all `parameters`, in one launch for every few hundred. Of `settings` only step, beta1, beta2, epsilon,
// weight_decay and gradient_multiplier count. Queued on `stream`; only in builds with CUDA.
void adamw_step(const AdamwStep& settings, std::span<const AdamwParameter> parameters, const GradientClip& clip,
                Stream stream);

// *result = sum of squares in double precision, always the same for the same values. `workspace`: device memory of
// sum_of_squares_workspace bytes.
inline constexpr std::int64_t sum_of_squares_workspace = 8 * 1024;
void sum_of_squares(const float* values, std::int64_t count, double* result, void* workspace, Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision; bfloat16_copy is not written.
void adamw_step(const AdamwStep& settings, std::int64_t count, const double* gradient, double* master, double* exp_avg,
                double* exp_avg_sq);

}  // namespace reference
}  // namespace amalgam::kernels
