// SPDX-License-Identifier: Apache-2.0
#include "model/token_batch.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {

TokenBatch::TokenBatch(at::Tensor given, const Borders& borders) : tokens(std::move(given)) {
    const bool any = std::any_of(borders.begin(), borders.end(), [](const auto& found) { return !found.empty(); });
    if (any) documents = std::make_shared<const Documents>(borders, tokens.size(1), tokens.device());
}

at::Tensor next_tokens(const TokenBatch& batch) {
    const at::Tensor& tokens = batch.tokens;
    const at::Tensor none = at::full({tokens.size(0), 1}, -1, tokens.options());
    const at::Tensor next = at::cat({tokens.narrow(1, 1, tokens.size(1) - 1), none}, 1).flatten();
    return batch.documents ? next.index_fill(0, batch.documents->ends(), -1) : next;
}

}  // namespace amalgam
