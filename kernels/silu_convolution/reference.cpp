// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "kernels/silu_convolution/silu_convolution.h"

namespace amalgam::kernels::reference {
namespace {

// Input of sequence b at time t, where a negative time reaches into the initial state.
struct Input {
    std::int64_t time, channels;
    int taps;
    const double* x;
    const double* initial_state;

    double operator()(std::int64_t b, std::int64_t t, std::int64_t c) const {
        if (t >= 0) return x[(b * time + t) * channels + c];
        if (initial_state == nullptr) return 0;
        return initial_state[(b * (taps - 1) + t + taps - 1) * channels + c];
    }

    double convolved(const double* weight, std::int64_t b, std::int64_t t, std::int64_t c) const {
        double u = 0;
        for (int j = 0; j < taps; ++j) u += weight[c * taps + j] * (*this)(b, t - taps + 1 + j, c);
        return u;
    }
};

double sigmoid(double u) {
    return 1 / (1 + std::exp(-u));
}

}  // namespace

void silu_convolution_forward(std::int64_t batch, std::int64_t time, std::int64_t channels, int taps, bool silu,
                              const double* x, const double* weight, const double* initial_state, double* y) {
    const Input input{time, channels, taps, x, initial_state};
    for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t t = 0; t < time; ++t) {
            for (std::int64_t c = 0; c < channels; ++c) {
                const double u = input.convolved(weight, b, t, c);
                y[(b * time + t) * channels + c] = silu ? u * sigmoid(u) : u;
            }
        }
    }
}

void silu_convolution_backward(std::int64_t batch, std::int64_t time, std::int64_t channels, int taps, bool silu,
                               const double* y_gradient, const double* x, const double* weight,
                               const double* initial_state, double* x_gradient, double* weight_gradient) {
    const Input input{time, channels, taps, x, initial_state};
    for (std::int64_t i = 0; i < batch * time * channels; ++i) x_gradient[i] = 0;
    for (std::int64_t i = 0; i < channels * taps; ++i) weight_gradient[i] = 0;
    for (std::int64_t b = 0; b < batch; ++b) {
        for (std::int64_t t = 0; t < time; ++t) {
            for (std::int64_t c = 0; c < channels; ++c) {
                const double u = input.convolved(weight, b, t, c);
                const double derivative = silu ? sigmoid(u) * (1 + u * (1 - sigmoid(u))) : 1;
                const double du = y_gradient[(b * time + t) * channels + c] * derivative;
                for (int j = 0; j < taps; ++j) {
                    const std::int64_t source = t - taps + 1 + j;
                    weight_gradient[c * taps + j] += du * input(b, source, c);
                    if (source >= 0) x_gradient[(b * time + source) * channels + c] += du * weight[c * taps + j];
                }
            }
        }
    }
}

}  // namespace amalgam::kernels::reference
