// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/rms_norm/rms_norm.h"

namespace amalgam::kernels::reference {

void rms_norm_forward(std::int64_t rows, std::int64_t width, double epsilon, const double* x, const double* residual,
                      const double* weight, double* sum, double* y, double* rstd) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * width;
        double squares = 0;
        for (std::int64_t i = 0; i < width; ++i) {
            sum[first + i] = x[first + i] + (residual != nullptr ? residual[first + i] : 0);
            squares += sum[first + i] * sum[first + i];
        }
        rstd[row] = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
        for (std::int64_t i = 0; i < width; ++i) y[first + i] = sum[first + i] * rstd[row] * weight[i];
    }
}

void rms_norm_backward(std::int64_t rows, std::int64_t width, const double* y_gradient, const double* sum_gradient,
                       const double* x, const double* weight, const double* rstd, double* x_gradient,
                       double* weight_gradient) {
    for (std::int64_t i = 0; i < width; ++i) weight_gradient[i] = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * width;
        double mean = 0;
        for (std::int64_t i = 0; i < width; ++i) {
            const double h = x[first + i] * rstd[row];
            mean += y_gradient[first + i] * weight[i] * h / static_cast<double>(width);
            weight_gradient[i] += y_gradient[first + i] * h;
        }
        for (std::int64_t i = 0; i < width; ++i) {
            const double h = x[first + i] * rstd[row];
            x_gradient[first + i] = rstd[row] * (y_gradient[first + i] * weight[i] - h * mean);
            if (sum_gradient != nullptr) x_gradient[first + i] += sum_gradient[first + i];
        }
    }
}

}  // namespace amalgam::kernels::reference
