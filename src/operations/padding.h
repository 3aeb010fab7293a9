// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/ATen.h>

namespace amalgam {

/// On GPUs, a product whose sizes are no multiples of 16 bytes takes about three times as long: there rows of zeros
/// round a weight [out, in] up.
inline at::Tensor padded_for_gpu(const at::Tensor& weight) {
    const int64_t multiple = 16 / weight.element_size(), extra = (multiple - weight.size(0) % multiple) % multiple;
    return weight.is_cuda() && extra > 0 ? at::constant_pad_nd(weight, {0, 0, 0, extra}) : weight;
}

}  // namespace amalgam
