// SPDX-License-Identifier: Apache-2.0
#include "mixers/sequence_pieces.h"

#include <gtest/gtest.h>

namespace amalgam {
namespace {

TEST(SequencePieces, follow_each_other_and_cover_the_sequence) {
    for (const int64_t ranks : {1, 2, 3, 4, 7})
        for (int64_t length = 1; length < 1000; ++length) {
            if (!has_pieces(length, ranks)) continue;
            int64_t end = 0, longest = 0;
            for (int64_t rank = 0; rank < ranks; ++rank) {
                const SequencePiece piece = sequence_piece(length, ranks, rank);
                EXPECT_EQ(piece.first, end);
                if (ranks > 1) {
                    EXPECT_GE(piece.count, shortest_piece) << length << " over " << ranks;
                }
                end = piece.end();
                longest = std::max(longest, piece.count);
            }
            EXPECT_EQ(end, length);
            EXPECT_EQ(longest_piece(length, ranks), longest) << length << " over " << ranks;
        }
}

TEST(SequencePieces, begin_at_chunks_where_there_are_enough) {
    EXPECT_EQ(sequence_piece(192, 2, 1).first, 128);  // the earlier one has the chunk that is left over
    EXPECT_EQ(sequence_piece(200, 3, 2).first, 128);
    EXPECT_EQ(sequence_piece(200, 3, 2).count, 72);
    EXPECT_EQ(sequence_piece(129, 2, 1).count, 65);  // no piece of one token
    EXPECT_EQ(sequence_piece(100, 2, 1).first, 50);
    EXPECT_FALSE(has_pieces(11, 4));
    EXPECT_TRUE(has_pieces(12, 4));
}

}  // namespace
}  // namespace amalgam
