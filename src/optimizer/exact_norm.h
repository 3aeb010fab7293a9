// SPDX-License-Identifier: Apache-2.0
// The L2 norm of numbers that are spread over ranks in any way, the same to the last bit for each: squares are added as
// integers. Squares of fp32 numbers are exact in fp64; each is cut into four digits of 2^-20, which are added apart.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

#include "sharding/tensor_collectives.h"

namespace amalgam {

class ExactNorm {
  public:
    /// values fp32, magnitudes up to 4096. What is below 2^-30 counts as zero.
    void add(const at::Tensor& values);
    /// Adds up what the ranks of a group have.
    void reduce(TensorCollectives& group, at::Device device);
    /// NaN if any number was not finite.
    double value() const;

  private:
    std::array<int64_t, 5> words_ = {};  // digits from 2^0 to 2^-60, then the count of numbers that are not finite
};

}  // namespace amalgam
