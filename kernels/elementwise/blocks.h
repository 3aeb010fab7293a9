// SPDX-License-Identifier: Apache-2.0
// Work on rows in blocks whose size depends on the number of rows alone, so that sums over rows, taken block by block
// and then over the blocks in order, are the same for any number of threads.
#pragma once

#include <type_traits>

#include "kernels/elementwise/elements.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {

struct Blocks {
    std::int64_t size;
    std::int64_t count;

    std::int64_t end(std::int64_t block, std::int64_t rows) const {
        return (block + 1) * size < rows ? (block + 1) * size : rows;
    }
};

// At most 64 blocks, each of at least `smallest` rows (but for the last).
inline Blocks blocks_of(std::int64_t rows, std::int64_t smallest) {
    std::int64_t size = (rows + 63) / 64;
    if (size < smallest) size = smallest;
    return {size, (rows + size - 1) / size};
}

// total[i] = sum over blocks of partial[block * width + i], in order.
inline void sum_blocks(const float* partial, std::int64_t blocks, std::int64_t width, float* total) {
    for_each_vector(width, [&](std::int64_t i, auto part) {
        Vector sum = zero();
        for (std::int64_t block = 0; block < blocks; ++block) sum = sum + load(partial + block * width + i, part);
        store(total + i, sum, part);
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
