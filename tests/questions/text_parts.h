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

}  // namespace amalgam::test
