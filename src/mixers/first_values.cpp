// SPDX-License-Identifier: Apache-2.0
#include "mixers/first_values.h"

#include <algorithm>
#include <cmath>

namespace amalgam {

Drawn drawn_decay_rate() {
    return {[](const RandomStream& random, int64_t i) { return std::log(16.0 * random.uniform(uint64_t(i))); }};
}

Drawn drawn_step_bias(int64_t channels) {
    return {[channels](const RandomStream& random, int64_t i) {
        const double uniform = random.uniform(uint64_t(i / channels));
        const double step = std::max(std::exp(std::log(1e-3) + uniform * (std::log(0.1) - std::log(1e-3))), 1e-4);
        return step + std::log(-std::expm1(-step));
    }};
}

Drawn identity_taps() {
    return {[](const RandomStream&, int64_t i) {
        return i % short_convolution_taps == short_convolution_taps - 1 ? 1.0 : 0.0;
    }};
}

}  // namespace amalgam
