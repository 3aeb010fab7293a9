// SPDX-License-Identifier: Apache-2.0
// Generation as plainly as it can be: without caches, a pass over all tokens for each new one.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <vector>

#include "generation/engine.h"

namespace amalgam::test {

/// The `count` most likely tokens after `prompt`.
inline std::vector<int32_t> by_whole_passes(const CausalLM& model, std::span<const int32_t> prompt, int64_t count) {
    const at::NoGradGuard no_grad;
    std::vector<int64_t> tokens(prompt.begin(), prompt.end());
    std::vector<int32_t> found;
    for (int64_t i = 0; i < count; ++i) {
        const at::Tensor logits = model.logits(at::tensor(tokens, at::kLong).unsqueeze(0).to(model.device()));
        tokens.push_back(logits.select(1, logits.size(1) - 1).argmax(-1).item<int64_t>());
        found.push_back(int32_t(tokens.back()));
    }
    return found;
}

/// A row of int64 tokens.
inline std::vector<int32_t> row_of(const at::Tensor& tokens, int64_t row) {
    const at::Tensor values = tokens.select(0, row).cpu().contiguous();
    return {values.const_data_ptr<int64_t>(), values.const_data_ptr<int64_t>() + values.numel()};
}

}  // namespace amalgam::test
