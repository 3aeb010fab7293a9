// SPDX-License-Identifier: Apache-2.0
// Sum of squares of gradients, in fp64, by the kernels of kernels/adamw.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace amalgam {

/// `gradients`: fp32, contiguous, on one device, which is waited for once. Always the same for the same tensors,
/// whatever the number of threads; not finite if any element is not.
double sum_of_squares(const std::vector<at::Tensor>& gradients, int threads);

}  // namespace amalgam
