// SPDX-License-Identifier: Apache-2.0
#include "training/best_fit.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "system/random.h"

namespace amalgam {
namespace {

std::vector<TokenRange> documents_of(const std::vector<int64_t>& lengths) {
    std::vector<TokenRange> documents;
    int64_t first = 0;
    for (const int64_t length : lengths) {
        documents.push_back({first, length});
        first += length;
    }
    return documents;
}

/// Few long ones, many short ones: 1 to about 4000 tokens.
std::vector<int64_t> mixed_lengths(int64_t count, uint64_t seed) {
    const RandomStream random(seed, "lengths");
    std::vector<int64_t> lengths;
    for (int64_t i = 0; i < count; ++i) lengths.push_back(int64_t(16.0 / (0.004 + random.uniform(uint64_t(i)))));
    return lengths;
}

std::vector<TokenRange> sequence(const PackedSequences& packed, size_t s) {
    return {packed.pieces.begin() + packed.starts[s], packed.pieces.begin() + packed.starts[s + 1]};
}

TEST(BestFit, puts_a_text_where_the_least_room_is_left) {
    const PackedSequences packed = pack_best_fit(documents_of({5, 3, 7, 2, 6, 4, 3}), 10);  // starts 0 5 8 15 17 23 27
    ASSERT_EQ(packed.starts.size(), 4U);
    EXPECT_EQ(sequence(packed, 0), (std::vector<TokenRange>{{8, 7}, {5, 3}}));
    EXPECT_EQ(sequence(packed, 1), (std::vector<TokenRange>{{17, 6}, {23, 4}}));
    EXPECT_EQ(sequence(packed, 2), (std::vector<TokenRange>{{0, 5}, {27, 3}, {15, 2}}));
    EXPECT_EQ(packed.counts.cut, 0);
    EXPECT_EQ(packed.counts.unread, 0);
}

TEST(BestFit, cuts_long_documents_into_whole_sequences_and_a_rest) {
    const PackedSequences packed = pack_best_fit(documents_of({23, 10, 7}), 10);
    EXPECT_EQ(packed.pieces, (std::vector<TokenRange>{{0, 10}, {10, 10}, {23, 10}, {33, 7}, {20, 3}}));
    EXPECT_EQ(packed.starts, (std::vector<int64_t>{0, 1, 2, 3, 5}));
    EXPECT_EQ(packed.counts.longer, 1);
    EXPECT_EQ(packed.counts.cut, 0);
}

/// No two documents of 6 fit into a sequence of 10: the last two fill the room beside the first two.
TEST(BestFit, leaves_no_room) {
    const PackedSequences packed = pack_best_fit(documents_of({6, 6, 6, 6}), 10);
    EXPECT_EQ(packed.starts, (std::vector<int64_t>{0, 3, 5}));
    EXPECT_EQ(packed.counts.cut, 2);
    EXPECT_EQ(packed.counts.cut_tokens, 12);
    EXPECT_EQ(packed.counts.unread, 4);
    EXPECT_EQ(sequence(packed, 0), (std::vector<TokenRange>{{0, 6}, {16, 2}, {18, 2}}));
    EXPECT_EQ(sequence(packed, 1), (std::vector<TokenRange>{{6, 6}, {12, 4}}));
}

TEST(BestFit, reads_every_token_once_in_full_sequences) {
    constexpr int64_t length = 512;
    for (const int64_t count : {1, 7, 3000}) {
        const auto documents = documents_of(mixed_lengths(count, 1));
        const PackedSequences packed = pack_best_fit(documents, length);
        const int64_t tokens = documents.back().first + documents.back().count;
        std::vector<int> read(size_t(tokens), 0);
        for (size_t s = 0; s + 1 < packed.starts.size(); ++s) {
            int64_t sum = 0;
            for (const TokenRange& piece : sequence(packed, s)) {
                sum += piece.count;
                ASSERT_GT(piece.count, 0);
                for (int64_t token = piece.first; token < piece.first + piece.count; ++token) ++read[size_t(token)];
            }
            EXPECT_EQ(sum, length);
        }
        EXPECT_LE(*std::ranges::max_element(read), 1);
        EXPECT_EQ(int64_t(packed.starts.size()) - 1, tokens / length);
        EXPECT_EQ(std::ranges::count(read, 0), tokens % length);
        EXPECT_EQ(packed.counts.unread, tokens % length);
        EXPECT_EQ(packed.counts.documents, count);
        EXPECT_EQ(packed.counts.tokens, tokens);
    }
}

/// Of these, sequences in the order of the file cut more than a tenth.
TEST(BestFit, hardly_cuts_documents_that_fit) {
    constexpr int64_t length = 512;
    const auto documents = documents_of(mixed_lengths(3000, 2));
    const PackedSequences packed = pack_best_fit(documents, length);
    int64_t fit = 0, whole = 0, cut_in_file_order = 0;
    for (const TokenRange& document : documents) {
        if (document.count > length) continue;
        ++fit;
        whole += std::ranges::count(packed.pieces, document);
        cut_in_file_order += document.first / length != (document.first + document.count - 1) / length;
    }
    constexpr int64_t shortest = 15;
    EXPECT_LE(fit - whole, packed.counts.cut + packed.counts.unread / shortest);
    EXPECT_LE(packed.counts.cut, 30);
    EXPECT_GT(cut_in_file_order, 300);
}

}  // namespace
}  // namespace amalgam
