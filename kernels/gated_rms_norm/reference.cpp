// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/gated_rms_norm/gated_rms_norm.h"

namespace amalgam::kernels::reference {
namespace {

double sigmoid(double x) {
    return 1 / (1 + std::exp(-x));
}
double silu(double x) {
    return x * sigmoid(x);
}
double silu_derivative(double x) {
    return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
}

}  // namespace

void gated_rms_norm_forward(std::int64_t rows, std::int64_t width, double epsilon, const double* o, const double* z,
                            const double* weight, double* y, double* rstd) {
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * width;
        double squares = 0;
        for (std::int64_t i = 0; i < width; ++i) squares += o[first + i] * o[first + i];
        rstd[row] = 1 / std::sqrt(squares / static_cast<double>(width) + epsilon);
        for (std::int64_t i = 0; i < width; ++i) {
            y[first + i] = weight != nullptr ? o[first + i] * rstd[row] * weight[i] : o[first + i];
            if (z != nullptr) y[first + i] *= silu(z[first + i]);
        }
    }
}

void gated_rms_norm_backward(std::int64_t rows, std::int64_t width, const double* y_gradient, const double* o,
                             const double* z, const double* weight, const double* rstd, double* o_gradient,
                             double* z_gradient, double* weight_gradient) {
    for (std::int64_t i = 0; weight != nullptr && i < width; ++i) weight_gradient[i] = 0;
    for (std::int64_t row = 0; row < rows; ++row) {
        const std::int64_t first = row * width;
        double mean = 0;
        for (std::int64_t i = first; i < first + width; ++i) {
            o_gradient[i] = y_gradient[i];  // the gradient of n, until the norm below
            if (z != nullptr) {
                const double n = weight != nullptr ? o[i] * rstd[row] * weight[i - first] : o[i];
                z_gradient[i] = y_gradient[i] * n * silu_derivative(z[i]);
                o_gradient[i] *= silu(z[i]);
            }
            if (weight != nullptr) {
                const double h = o[i] * rstd[row];
                weight_gradient[i - first] += o_gradient[i] * h;
                o_gradient[i] *= weight[i - first];
                mean += o_gradient[i] * h / static_cast<double>(width);
            }
        }
        for (std::int64_t i = first; weight != nullptr && i < first + width; ++i) {
            o_gradient[i] = rstd[row] * (o_gradient[i] - o[i] * rstd[row] * mean);
        }
    }
}

}  // namespace amalgam::kernels::reference
