// SPDX-License-Identifier: Apache-2.0
#include "kernels/rotary/rotary.h"

namespace amalgam::kernels::reference {

void rotary_forward(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t positions,
                    const double* cos, const double* sin, const double* x, double* y) {
    const std::int64_t half = width / 2;
    for (std::int64_t row = 0; row < tokens * heads; ++row) {
        const std::int64_t table = row / heads % positions * width;
        for (std::int64_t j = 0; j < half; ++j) {
            const double low = x[row * width + j];
            const double high = x[row * width + half + j];
            y[row * width + j] = low * cos[table + j] - high * sin[table + j];
            y[row * width + half + j] = high * cos[table + half + j] + low * sin[table + half + j];
        }
    }
}

void rotary_backward(std::int64_t tokens, std::int64_t heads, std::int64_t width, std::int64_t positions,
                     const double* cos, const double* sin, const double* y_gradient, double* x_gradient) {
    const std::int64_t half = width / 2;
    for (std::int64_t row = 0; row < tokens * heads; ++row) {
        const std::int64_t table = row / heads % positions * width;
        for (std::int64_t j = 0; j < half; ++j) {
            const double low = y_gradient[row * width + j];
            const double high = y_gradient[row * width + half + j];
            x_gradient[row * width + j] = low * cos[table + j] + high * sin[table + half + j];
            x_gradient[row * width + half + j] = high * cos[table + half + j] - low * sin[table + j];
        }
    }
}

}  // namespace amalgam::kernels::reference
