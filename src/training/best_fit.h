// SPDX-License-Identifier: Apache-2.0
// Documents packed into sequences so that few are cut: best-fit decreasing, as in Ding et al., "Fewer Truncations
// Improve Language Modeling", ICML 2024, arXiv:2404.10830. A document longer than a sequence is cut into whole
// sequences and a rest. Then rests and other documents, the longest first, go each into the sequence with the least
// room that still holds it.
//
// No place is left empty, so that all sequences count alike and no loss has to skip padding: the sequences with the
// most room are given up again, and their texts fill the others' room, cut where they do not fit.
#pragma once

#include <cstdint>
#include <vector>

namespace amalgam {

/// Consecutive tokens of a token file.
struct TokenRange {
    int64_t first = 0, count = 0;
    bool operator==(const TokenRange&) const = default;
};

struct PackingCounts {
    int64_t documents = 0, tokens = 0;  // given
    int64_t longer = 0;                 // documents that no sequence holds
    int64_t cut = 0, cut_tokens = 0;    // documents and rests that a sequence would hold, and their tokens
    int64_t unread = 0;                 // tokens left over, fewer than a sequence
};

struct PackedSequences {
    std::vector<TokenRange> pieces;  // sequence by sequence; those of one are different texts
    std::vector<int64_t> starts;     // [sequences + 1]: the first piece of each, then their number
    PackingCounts counts;
};

/// `documents`: of at least one token each, none twice. As many sequences of `length` as their tokens fill, each piece
/// of a text in one of them; O(n log n) in documents and sequences.
PackedSequences pack_best_fit(const std::vector<TokenRange>& documents, int64_t length);

}  // namespace amalgam
