// SPDX-License-Identifier: Apache-2.0
#include "system/random.h"

#include <bit>

#include "system/error.h"

namespace amalgam {

namespace {

uint64_t join(uint32_t low, uint32_t high) {
    return uint64_t{high} << 32 | low;
}
uint32_t low_word(uint64_t value) {
    return static_cast<uint32_t>(value);
}
uint32_t high_word(uint64_t value) {
    return static_cast<uint32_t>(value >> 32);
}

/// 52 random bits and a half: never 0, never 1, and exact in a double.
double to_unit_interval(uint64_t bits) {
    return (static_cast<double>(bits >> 12) + 0.5) * 0x1.0p-52;
}

/// FNV-1a. Only has to tell names apart; Philox does the mixing.
uint64_t hash_of(std::string_view name) {
    uint64_t hash = 0xcbf29ce484222325u;
    for (unsigned char c : name) hash = (hash ^ c) * 0x100000001b3u;
    return hash;
}

}  // namespace

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
    constexpr int rounds = 10;
    constexpr uint64_t multiplier_0 = 0xD2511F53, multiplier_1 = 0xCD9E8D57;
    constexpr uint32_t weyl_0 = 0x9E3779B9, weyl_1 = 0xBB67AE85;
    for (int round = 0; round < rounds; ++round) {
        const uint64_t product_0 = multiplier_0 * counter[0], product_1 = multiplier_1 * counter[2];
        counter = {high_word(product_1) ^ counter[1] ^ key[0], low_word(product_1),
                   high_word(product_0) ^ counter[3] ^ key[1], low_word(product_0)};
        key[0] += weyl_0;
        key[1] += weyl_1;
    }
    return counter;
}

RandomStream::RandomStream(uint64_t seed, std::string_view name)
    : key_{low_word(seed), high_word(seed)}, stream_(hash_of(name)) {}

uint64_t RandomStream::bits(uint64_t n) const {
    const auto words = philox({low_word(n), high_word(n), low_word(stream_), high_word(stream_)}, key_);
    return join(words[0], words[1]);
}

double RandomStream::uniform(uint64_t n) const {
    return to_unit_interval(bits(n));
}

Permutation::Permutation(uint64_t size, uint64_t seed)
    : size_(size), seed_(seed), half_bits_(size < 2 ? 1 : (static_cast<int>(std::bit_width(size - 1)) + 1) / 2) {}

uint64_t Permutation::image(uint64_t index) const {
    if (index >= size_) throw Error(text("index ", index, " is outside a permutation of ", size_, " elements"));
    constexpr uint32_t rounds = 8;  // 4 do for large domains; small ones mix less in each
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    uint64_t value = index;
    do {  // The network permutes at most 4 size_ values; walking its cycle until it is back inside permutes size_
          // values.
        uint64_t left = value >> half_bits_, right = value & mask;
        for (uint32_t round = 0; round < rounds; ++round) {
            const auto words =
                philox({low_word(right), high_word(right), round, 0}, {low_word(seed_), high_word(seed_)});
            const uint64_t next = left ^ (words[0] & mask);
            left = right;
            right = next;
        }
        value = left << half_bits_ | right;
    } while (value >= size_);
    return value;
}

}  // namespace amalgam
