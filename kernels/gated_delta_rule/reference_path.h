// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gated_delta_rule/chunk_kernels.h"

/// The reference recurrence behind the same calls as the fast variants; `index` is sequence * heads + head.
namespace amalgam::kernels {

void reference_forward(const ForwardCall& call, int64_t index);
void reference_backward(const BackwardCall& call, int64_t index);
void reference_decode(const DecodeCall& call, int64_t index);

}  // namespace amalgam::kernels
