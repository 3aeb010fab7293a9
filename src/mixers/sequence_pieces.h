// SPDX-License-Identifier: Apache-2.0
// How ranks that share a sequence (context parallelism) cut it: into consecutive pieces, one for each, in their order.
#pragma once

#include <algorithm>
#include <cstdint>

#include "mixers/first_values.h"

namespace amalgam {

struct SequencePiece {
    int64_t first = 0, count = 0;  // tokens
    int64_t end() const { return first + count; }
};

/// A short convolution reads so many tokens before its own: they must all be of one piece.
inline constexpr int64_t shortest_piece = short_convolution_taps - 1;

/// Can sequences of `length` tokens be cut for so many ranks?
inline bool has_pieces(int64_t length, int64_t ranks) {
    return ranks == 1 || length >= ranks * shortest_piece;
}

/// The piece of `rank`. Pieces are whole chunks of 64 tokens, those in which linear mixers compute, and differ by one
/// at most, earlier ones being the longer; the last has the tokens beyond the last whole chunk too. Sequences of fewer
/// whole chunks than ranks are cut into pieces of equal length, up to a token.
inline SequencePiece sequence_piece(int64_t length, int64_t ranks, int64_t rank) {
    constexpr int64_t chunk = 64;
    const int64_t unit = length / chunk >= ranks ? chunk : 1, units = length / unit;
    const auto first = [&](int64_t r) { return r == ranks ? length : (units * r + ranks - 1) / ranks * unit; };
    return {first(rank), first(rank + 1) - first(rank)};
}

/// Tokens of the longest piece: the first, or the last with its rest.
inline int64_t longest_piece(int64_t length, int64_t ranks) {
    return std::max(sequence_piece(length, ranks, 0).count, sequence_piece(length, ranks, ranks - 1).count);
}

}  // namespace amalgam
