// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: the n-th number of a stream is a pure function of (seed, stream, n), so results do not
// depend on the number of ranks and a generator has no state to save.
// Philox4x32-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace amalgam {

/// Four 32-bit words from a 128-bit counter and a 64-bit key.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// A named stream of numbers. Streams of different names (e.g. tensor names) are independent.
class RandomStream {
  public:
    RandomStream(uint64_t seed, std::string_view name);
    uint64_t bits(uint64_t n) const;
    double uniform(uint64_t n) const;  // in (0, 1), never 0 or 1

  private:
    std::array<uint32_t, 2> key_;
    uint64_t stream_;
};

/// A keyed permutation of [0, size): image(i) in constant memory and time (Feistel network with cycle walking).
class Permutation {
  public:
    Permutation(uint64_t size, uint64_t seed);
    uint64_t image(uint64_t index) const;

  private:
    uint64_t size_, seed_;
    int half_bits_;
};

}  // namespace amalgam
