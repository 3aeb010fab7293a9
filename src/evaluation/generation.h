// SPDX-License-Identifier: Apache-2.0
// Greedy generation with caches: the prompt in one pass, then one token at a time through the recurrent forms.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/causal_lm.h"

namespace amalgam {

/// prompt int64 [batch, time] -> the `count` tokens that follow, int64 [batch, count]. Stops early (padding with
/// `stop`) only if `stop` >= 0 and every sequence has produced it.
at::Tensor generate_greedily(const CausalLM& model, const at::Tensor& prompt, int64_t count, int64_t stop = -1);

/// At most `count` tokens that follow one prompt. The first of `stops` (sorted) that comes up is the last one returned.
/// Collective if the model is sharded.
std::vector<int32_t> generate_until(const CausalLM& model, std::span<const int32_t> prompt, int64_t count,
                                    std::span<const int32_t> stops);

}  // namespace amalgam
