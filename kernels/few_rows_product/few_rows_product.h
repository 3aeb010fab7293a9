// SPDX-License-Identifier: Apache-2.0
// A linear map of few rows, as generation has one token at a time of each of some sequences:
//     y = x W^T + b
// Shapes: x [rows, in], weight [out, in], y [rows, out] views of one type; bias [out] of that type, contiguous, or
// null. Every weight is read from memory once, whatever the number of rows: that is what the time goes into. Sums are
// float32. A row gives the same bits alone and among others, and on any number of threads.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
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

/// On device memory, queued on `stream`; only in builds with CUDA.
namespace cuda {

/// What happens to x before the product and to y after it, in this order: an RMS norm of x (rms_norm.h), whose rounding
/// to `type` is that of x times the norm's weights; where `gated`, silu(gate) up of the halves of y, which is then
/// [rows, out / 2]; a residual shaped as y is added.
struct AroundProduct {
    const float* norm = nullptr;  // [in]
    float epsilon = 0;
    bool gated = false;
    ConstRows residual = {};
};

/// True for bfloat16, up to 16 rows, multiples of 64 channels and even numbers of outputs, if rows of x and of the
/// weight and the norm are aligned to 16 bytes, those of y and of the residual and the bias to 4, and x is not too
/// large for a cluster's shared memory.
bool few_rows_product_supports(const FewRowsProduct& arguments, const AroundProduct& around = {});

/// It fetches weights while the kernels in front of it are at work (kernels/cuda/dependent_launch.cuh): these must not
/// write them.
void few_rows_product(const FewRowsProduct& arguments, const AroundProduct& around, Stream stream);

}  // namespace cuda

namespace reference {

/// In double precision; contiguous.
void few_rows_product(std::int64_t rows, std::int64_t in, std::int64_t out, const double* x, const double* weight,
                      const double* bias, double* y);

}  // namespace reference
}  // namespace amalgam::kernels
