// SPDX-License-Identifier: Apache-2.0
#include "kernels/few_rows_product/few_rows_product.h"

namespace amalgam::kernels::reference {

void few_rows_product(std::int64_t rows, std::int64_t in, std::int64_t out, const double* x, const double* weight,
                      const double* bias, double* y) {
    for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t o = 0; o < out; ++o) {
            double sum = bias == nullptr ? 0 : bias[o];
            for (std::int64_t i = 0; i < in; ++i) sum += x[r * in + i] * weight[o * in + i];
            y[r * out + o] = sum;
        }
}

}  // namespace amalgam::kernels::reference
