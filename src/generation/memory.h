// SPDX-License-Identifier: Apache-2.0
// How many sequences a cache may hold.
#pragma once

#include "model/causal_lm.h"

namespace amalgam {

/// Bytes of memory on the device that caches may take: on a GPU three quarters of what is free or kept by LibTorch's
/// allocator without use, on a CPU half of what is available, which ranks of a node have to share.
int64_t memory_for_caches(at::Device device);

/// At most `wanted` slots of `capacity` tokens in `memory` bytes. Throws Error if there is no place for one.
int64_t slots_that_fit(const CausalLM& model, int64_t capacity, int64_t wanted, int64_t memory);

}  // namespace amalgam
