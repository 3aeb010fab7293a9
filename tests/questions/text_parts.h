// SPDX-License-Identifier: Apache-2.0
// To look at the tokens of a text.
#pragma once

#include <algorithm>

#include "questions/recall_wording.h"

namespace amalgam::test {

inline TextPiece part(const TextPiece& tokens, int64_t first, int64_t count) {
    return {tokens.begin() + first, tokens.begin() + first + count};
}

inline int64_t occurrences(const TextPiece& tokens, const TextPiece& wanted) {
    int64_t count = 0;
    for (auto at = tokens.begin();; ++at, ++count) {
        at = std::search(at, tokens.end(), wanted.begin(), wanted.end());
        if (at == tokens.end()) return count;
    }
}

/// Where `wanted` first stands; -1 if it does not.
inline int64_t place_of(const TextPiece& tokens, const TextPiece& wanted) {
    const auto at = std::search(tokens.begin(), tokens.end(), wanted.begin(), wanted.end());
    return at == tokens.end() ? -1 : at - tokens.begin();
}

}  // namespace amalgam::test
