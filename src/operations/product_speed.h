// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// flop/s of a matrix product in `type` as models compute it (products.h), with LibTorch's current number of threads:
/// the best of some tenths of a second. What a device can do where no data sheet says so.
double measure_product_speed(at::Device device, at::ScalarType type);

}  // namespace amalgam
