// SPDX-License-Identifier: Apache-2.0
#include "training/repeated_passages.h"

#include <algorithm>

namespace amalgam {

namespace {

/// Within one text. `drawn`: numbers that `stream` has given.
void repeat_in_text(std::span<int64_t> tokens, double fraction, const RandomStream& stream, uint64_t& drawn) {
    const auto time = int64_t(tokens.size());
    const double mean_length = 0.5 * double(shortest_repeat + longest_repeat);
    // Rounded up or down at random, so that the mean is the asked one for short sequences, too.
    const auto parts = int64_t(fraction * double(time) / mean_length + stream.uniform(drawn++));
    if (parts == 0) return;
    const int64_t part = time / parts;
    const int64_t longest = std::min(longest_repeat, part / 2), shortest = std::min(shortest_repeat, longest);
    const auto draw = [&](int64_t low, int64_t high) {  // low to high, both included
        return low + int64_t(stream.uniform(drawn++) * double(high - low + 1));
    };
    for (int64_t p = 0; p < parts; ++p) {
        const int64_t length = draw(shortest, longest);
        // Nothing stands before the first passage but what it leaves room for.
        const int64_t target = draw(std::max(p * part, length), (p + 1) * part - length);
        const int64_t source = draw(0, target - length);
        std::copy_n(tokens.begin() + source, length, tokens.begin() + target);
    }
}

}  // namespace

void repeat_passages(std::span<int64_t> tokens, const std::vector<int64_t>& borders, double fraction,
                     const RandomStream& stream, uint64_t sequence) {
    uint64_t drawn = sequence << 20;  // numbers of this sequence; no sequence is long enough to draw a million
    int64_t first = 0;
    const auto end_at = [&](int64_t end) {
        repeat_in_text(tokens.subspan(size_t(first), size_t(end - first)), fraction, stream, drawn);
        first = end;
    };
    for (const int64_t border : borders) end_at(border);
    end_at(int64_t(tokens.size()));
}

}  // namespace amalgam
