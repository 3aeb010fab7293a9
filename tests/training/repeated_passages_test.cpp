// SPDX-License-Identifier: Apache-2.0
#include "training/repeated_passages.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace amalgam {
namespace {

/// Every token of the plain sequence is its own place, so a token says where it was copied from.
std::vector<int64_t> repeated(int64_t time, double fraction, uint64_t sequence, uint64_t seed = 1) {
    std::vector<int64_t> tokens(static_cast<size_t>(time));
    std::iota(tokens.begin(), tokens.end(), 0);
    repeat_passages(tokens, {}, fraction, RandomStream(seed, "repeats"), sequence);
    return tokens;
}

double share_of_copies(const std::vector<int64_t>& tokens) {
    int64_t copies = 0;
    for (size_t i = 0; i < tokens.size(); ++i) copies += tokens[i] != int64_t(i);
    return double(copies) / double(tokens.size());
}

TEST(RepeatedPassages, copies_come_from_before_and_in_whole_passages) {
    for (const int64_t time : {2, 5, 40, 512, 4096})
        for (uint64_t sequence = 0; sequence < 50; ++sequence) {
            const auto tokens = repeated(time, 0.25, sequence);
            int64_t starts = 0;
            for (size_t i = 0; i < tokens.size(); ++i) {
                ASSERT_LE(tokens[i], int64_t(i)) << time;
                if (tokens[i] != int64_t(i) && tokens[i] != tokens[i - 1] + 1) ++starts;
            }
            // A copy of a passage that is itself partly a copy has a seam inside.
            EXPECT_LE(starts, time / shortest_repeat + 1) << time;
        }
}

TEST(RepeatedPassages, about_the_asked_share_is_repeated) {
    for (const double fraction : {0.05, 0.1, 0.25}) {
        double mean = 0.0;
        for (uint64_t sequence = 0; sequence < 200; ++sequence)
            mean += share_of_copies(repeated(2048, fraction, sequence)) / 200.0;
        EXPECT_NEAR(mean, fraction, 0.15 * fraction + 0.01);
    }
}

TEST(RepeatedPassages, distances_reach_over_the_whole_sequence) {
    int64_t near = 0, far = 0;
    for (uint64_t sequence = 0; sequence < 200; ++sequence) {
        const auto tokens = repeated(4096, 0.1, sequence);
        for (size_t i = 0; i < tokens.size(); ++i) {
            near += tokens[i] != int64_t(i) && int64_t(i) - tokens[i] < 512;
            far += int64_t(i) - tokens[i] > 2048;
        }
    }
    EXPECT_GT(near, far / 4);
    EXPECT_GT(far, near / 4);
}

TEST(RepeatedPassages, a_sequence_always_repeats_the_same_places_and_others_repeat_others) {
    EXPECT_EQ(repeated(512, 0.1, 7), repeated(512, 0.1, 7));
    EXPECT_NE(repeated(512, 0.1, 7), repeated(512, 0.1, 8));
    EXPECT_NE(repeated(512, 0.1, 7), repeated(512, 0.1, 7, 2));
}

TEST(RepeatedPassages, copies_come_from_the_same_text) {
    const std::vector<int64_t> borders = {1, 3, 100, 700, 720, 1500};
    int64_t copies = 0;
    for (uint64_t sequence = 0; sequence < 50; ++sequence) {
        std::vector<int64_t> tokens(2048);
        std::iota(tokens.begin(), tokens.end(), 0);
        repeat_passages(tokens, borders, 0.25, RandomStream(1, "repeats"), sequence);
        int64_t text = 0;
        for (int64_t i = 0; i < 2048; ++i) {
            if (std::find(borders.begin(), borders.end(), i) != borders.end()) text = i;
            ASSERT_GE(tokens[size_t(i)], text) << i;
            copies += tokens[size_t(i)] != i;
        }
    }
    EXPECT_NEAR(double(copies) / (50 * 2048), 0.25, 0.05);
}

TEST(RepeatedPassages, nothing_is_repeated_unless_asked_for) {
    EXPECT_EQ(share_of_copies(repeated(2048, 0.0, 3)), 0.0);
}

}  // namespace
}  // namespace amalgam
