// SPDX-License-Identifier: Apache-2.0
// What a pass over whole sequences gets.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "mixers/documents.h"

namespace amalgam {

struct TokenBatch {
    at::Tensor tokens;                           // int64 [sequences, time]
    std::shared_ptr<const Documents> documents;  // that are kept apart; null: every sequence is one text

    TokenBatch(at::Tensor of_whole_sequences) : tokens(std::move(of_whole_sequences)) {}
    /// On the device of `tokens`. Without borders as above.
    TokenBatch(at::Tensor tokens, const Borders& borders);

    int64_t sequences() const { return tokens.size(0); }
    int64_t time() const { return tokens.size(1); }
    int64_t texts() const { return documents ? documents->count() : sequences(); }
};

/// The token after each token of a text, -1 after its last: [sequences * time].
at::Tensor next_tokens(const TokenBatch& batch);

}  // namespace amalgam
