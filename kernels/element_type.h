// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace amalgam::kernels {

/// Storage type of the activations a kernel reads and writes. Arithmetic inside the kernels is at least fp32.
enum class ElementType { float32, bfloat16 };

}  // namespace amalgam::kernels
