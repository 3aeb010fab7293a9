// SPDX-License-Identifier: Apache-2.0
// Qwen3.5 norms query and key of every head: x / sqrt(mean(x^2) + eps) * weight. With projections scaled by s, so that
// mean(x^2) s^2 is nothing beside eps, that is x s / sqrt(eps) * weight, and two norm weights with the product eps /
// s^2 make q k what it was.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace amalgam {

/// Bound of the mean square of a head's outputs, over all inputs x with mean(x^2) <= 1: weight [heads * head_dim,
/// hidden] as it meets the normed input, bias [heads * head_dim] or undefined.
double mean_square_bound(const at::Tensor& weight, const at::Tensor& bias, int64_t head_dim);

/// s, a power of two (which costs no bits), at most 2^-20: mean_square s^2 / 2 is at most 2^-22 of eps.
double neutral_scale(double mean_square, double eps);

/// The stored weights (one less than they are) of the two norms, both exact in bfloat16. One carries the product, rounded;
/// the other lies so near to 1, where bfloat16 is finest, that it takes the rounding back: the product is right to 1e-5.
std::pair<double, double> neutral_norm_weights(double eps, double scale);

}  // namespace amalgam
