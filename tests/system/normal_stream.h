// SPDX-License-Identifier: Apache-2.0
// Standard normal numbers for tests: as RandomStream, the n-th number of a stream is a function of seed, name and n.
#pragma once

#include <cmath>
#include <numbers>
#include <string_view>

#include "system/random.h"

namespace amalgam::test {

class NormalStream {
  public:
    NormalStream(uint64_t seed, std::string_view name)
        : uniform_(seed, name), key_{uint32_t(seed), uint32_t(seed >> 32)} {
        for (unsigned char c : name) hash_ = (hash_ ^ c) * 0x100000001b3u;  // FNV-1a, as RandomStream names its streams
    }

    /// Box-Muller from two uniform numbers: that of RandomStream, and one from the two words that it leaves.
    double operator()(uint64_t n) const {
        const auto words = philox({uint32_t(n), uint32_t(n >> 32), uint32_t(hash_), uint32_t(hash_ >> 32)}, key_);
        const uint64_t bits = uint64_t{words[3]} << 32 | words[2];
        const double angle = 2.0 * std::numbers::pi * ((double(bits >> 12) + 0.5) * 0x1.0p-52);
        return std::sqrt(-2.0 * std::log(uniform_.uniform(n))) * std::cos(angle);
    }

  private:
    RandomStream uniform_;
    std::array<uint32_t, 2> key_;
    uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace amalgam::test
