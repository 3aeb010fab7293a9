// SPDX-License-Identifier: Apache-2.0
// Gradients as integers of 2^-50: their sums do not depend on the order of micro-batches and ranks.
#pragma once

#include <ATen/ATen.h>

namespace amalgam {

inline constexpr double fixed_point_one = 1125899906842624.0;  // 2^50
inline constexpr double fixed_point_range = 4096.0;            // of a sum: far below 2^63 / 2^50

struct FixedPoint {
    at::Tensor values;        // int64; 0 where out of range
    at::Tensor out_of_range;  // bool: magnitude above `largest`, or NaN
};

inline FixedPoint to_fixed_point(const at::Tensor& gradient, double largest) {
    const at::Tensor bad = gradient.abs().le(largest).logical_not();  // true for NaN
    return {(gradient.to(at::kDouble) * fixed_point_one).round().masked_fill(bad, 0.0).to(at::kLong), bad};
}

/// fp64.
inline at::Tensor from_fixed_point(const at::Tensor& values) {
    return values.to(at::kDouble) / fixed_point_one;
}

}  // namespace amalgam
