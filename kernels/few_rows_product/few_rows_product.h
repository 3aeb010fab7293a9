// SPDX-License-Identifier: Apache-2.0
// A linear map of few rows, as generation has one token at a time of each of some sequences:
//     y = x W^T + b
// Shapes: x [rows, in], weight [out, in], y [rows, out] views of one type; bias [out] of that type, contiguous, or
// null. Every weight is read from memory once, whatever the number of rows: that is what the time goes into. Sums are
// float32. A row gives the same bits alone and among others, and on any number of threads. Only on CPUs.
#pragma once

#include <cstdint>

#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

struct FewRowsProduct {
    ElementType type;
    std::int64_t rows = 0;
    std::int64_t in = 0;
    std::int64_t out = 0;
    ConstRows x;
    ConstRows weight;
    const void* bias = nullptr;
    Rows y;
};

void few_rows_product(const FewRowsProduct& arguments, int threads);

namespace reference {

/// In double precision; contiguous.
void few_rows_product(std::int64_t rows, std::int64_t in, std::int64_t out, const double* x, const double* weight,
                      const double* bias, double* y);

}  // namespace reference
}  // namespace amalgam::kernels
