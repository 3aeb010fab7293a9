// SPDX-License-Identifier: Apache-2.0
// Passes over one row of logits that the losses share. Sums of exponentials run in float32 within a block of columns
// and in double precision over the blocks.
#pragma once

#include <type_traits>

#include "kernels/elementwise/exponential.h"

namespace amalgam::kernels::AMALGAM_ISA {

inline constexpr std::int64_t columns_per_block = 1024;

inline constexpr float negative_infinity = -__builtin_inff();

// The largest logit. NaNs are passed over: they reach the result through the sum of exponentials.
template <class T>
float row_maximum(const T* logits, std::int64_t columns) {
    constexpr int chains = 4;  // independent, to hide the latency of the comparison
    Vector largest[chains];
    for (Vector& chain : largest) chain = broadcast(negative_infinity);
    std::int64_t i = 0;
    for (; i + chains * lanes <= columns; i += chains * lanes) {
        for (int c = 0; c < chains; ++c) largest[c] = max(load(logits + i + c * lanes, Whole{}), largest[c]);
    }
    for_each_vector(columns - i, [&](std::int64_t j, auto part) {
        largest[0] = max(fill_absent(load(logits + i + j, part), part, negative_infinity), largest[0]);
    });
    return largest_lane(max(max(largest[0], largest[1]), max(largest[2], largest[3])));
}

// Calls body(begin, count) for each block of columns.
template <class Body>
inline __attribute__((always_inline)) void for_each_block(std::int64_t columns, Body&& body) {
    for (std::int64_t begin = 0; begin < columns; begin += columns_per_block) {
        body(begin, columns - begin < columns_per_block ? columns - begin : columns_per_block);
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
