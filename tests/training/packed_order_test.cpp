// SPDX-License-Identifier: Apache-2.0
#include "training/packed_order.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "../storage/temporary_folder.h"
#include "small_corpus.h"

namespace amalgam {
namespace {

constexpr int64_t length = 64, tokens = 60000, window = 100;  // sequences of a window: nine windows

/// About 3000 documents of 1 to 39 tokens, and after them one of 5000.
class PackedOrders : public test::TemporaryFolder {
  protected:
    void SetUp() override {
        std::vector<int64_t> starts = test::document_borders(tokens, 20, 1);
        std::erase_if(starts, [](int64_t start) { return start > tokens - 5000; });
        starts.push_back(tokens - 5000);
        test::write_tokens(folder / "tokens.h5", std::vector<int64_t>(tokens, 0), 10, {}, "none", starts);
        file = std::make_unique<TokenFile>(folder / "tokens.h5");
    }
    PackedOrder order(uint64_t seed = 1, const std::string& stage = "align") const {
        return {*file, length, seed, stage, window};
    }
    static std::vector<TokenRange> read(PackedOrder& order, int64_t sequence) {
        const auto pieces = order.pieces(sequence);
        return {pieces.begin(), pieces.end()};
    }
    static std::vector<std::vector<TokenRange>> read(PackedOrder order, int64_t first, int64_t count) {
        std::vector<std::vector<TokenRange>> all;
        for (int64_t s = first; s < first + count; ++s) all.push_back(read(order, s));
        return all;
    }
    std::unique_ptr<TokenFile> file;
};

/// Windows leave less than a sequence each; what an epoch reads comes next in the endless order.
TEST_F(PackedOrders, an_epoch_reads_nothing_twice_and_nearly_all) {
    const int64_t least = tokens / length - 9;
    PackedOrder packed = order();
    std::vector<int> times(tokens, 0);
    const auto add = [&](int64_t sequence) {
        int64_t sum = 0;
        for (const TokenRange& piece : packed.pieces(sequence)) {
            sum += piece.count;
            for (int64_t token = piece.first; token < piece.first + piece.count; ++token) ++times[size_t(token)];
        }
        EXPECT_EQ(sum, length);
    };
    int64_t sequence = 0;
    while (sequence < least) add(sequence++);
    EXPECT_EQ(*std::ranges::max_element(times), 1);
    EXPECT_EQ(std::ranges::count(times, 0), tokens - least * length);
    while (sequence < 3 * least) add(sequence++);
    EXPECT_LE(*std::ranges::max_element(times), 3);
    EXPECT_LT(std::ranges::count(times, 0), 30) << "what one epoch leaves others read";
}

TEST_F(PackedOrders, documents_are_whole) {
    PackedOrder packed = order();
    int64_t pieces = 0, whole = 0;
    for (int64_t s = 0; s < tokens / length - 9; ++s)
        for (const TokenRange& piece : packed.pieces(s)) {
            if (piece.first >= tokens - 5000) continue;
            ++pieces;
            const int64_t before = std::min<int64_t>(piece.first, 1);
            whole += int64_t(file->borders(piece.first - before, before + piece.count + 1).size()) == before + 1;
        }
    EXPECT_GT(pieces, 2500);
    EXPECT_GT(double(whole), 0.98 * double(pieces));
    EXPECT_LE(packed.counts(0).cut, 5);
}

/// Where a run goes on, and which of the ranks asks, changes nothing.
TEST_F(PackedOrders, a_sequence_depends_on_its_number_alone) {
    const auto all = read(order(), 0, 2500);
    PackedOrder other = order();
    for (const int64_t s : {2499, 3, 1200, 1199, 95, 1300, 0, 2499}) EXPECT_EQ(read(other, s), all[size_t(s)]) << s;
    EXPECT_EQ(read(order(), 1500, 300), (std::vector(all.begin() + 1500, all.begin() + 1800)));
}

TEST_F(PackedOrders, epochs_seeds_and_stages_have_their_own_order) {
    const auto first = read(order(), 0, 50);
    EXPECT_EQ(first, read(order(), 0, 50));
    EXPECT_NE(first, read(order(2), 0, 50));
    EXPECT_NE(first, read(order(1, "distill"), 0, 50));
    EXPECT_NE(first, read(order(), tokens / length, 50));
}

/// A file sorted by source, say: a window is not one place of it.
TEST_F(PackedOrders, a_window_is_a_sample_of_the_file) {
    std::vector<int64_t> firsts;
    for (const auto& sequence : read(order(), 0, window / 2)) firsts.push_back(sequence[0].first);
    const auto [least, most] = std::ranges::minmax(firsts);
    EXPECT_GT(most - least, tokens / 3);
    EXPECT_FALSE(std::ranges::is_sorted(firsts));
}

TEST_F(PackedOrders, a_file_of_too_little_text_is_refused) {
    test::expect_error([&] { PackedOrder(*file, tokens + 1, 1, "align"); }, ExitCode::bad_input,
                       {"data.training", "60001", "data.packing: none"});
}

}  // namespace
}  // namespace amalgam
