// SPDX-License-Identifier: Apache-2.0
#include "system/finite.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace amalgam {
namespace {

/// One bad number anywhere among good ones, the extreme ones included, is found.
template <class Number>
void expect_found() {
    using Limits = std::numeric_limits<Number>;
    for (const size_t count : {1, 2, 7, 64, 1001}) {
        std::vector<Number> values(count, Limits::max());
        values[count / 2] = -Limits::max();
        values[count / 3] = Limits::denorm_min();
        EXPECT_TRUE(all_finite(values)) << count;
        for (const Number bad : {Limits::quiet_NaN(), -Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity()})
            for (const size_t place : {size_t{0}, count / 2, count - 1}) {
                auto with = values;
                with[place] = bad;
                EXPECT_FALSE(all_finite(with)) << bad << " at " << place << " of " << count;
            }
    }
    EXPECT_TRUE(all_finite(std::span<const Number>()));
}

TEST(Finite, floats) {
    expect_found<float>();
}

TEST(Finite, doubles) {
    expect_found<double>();
}

}  // namespace
}  // namespace amalgam
