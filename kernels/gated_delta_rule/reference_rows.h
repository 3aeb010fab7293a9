// SPDX-License-Identifier: Apache-2.0
// What the references of the gated delta rule and of Kimi Delta Attention do with rows: elementary functions, and the
// activations with SiLU and normalisation.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace amalgam::kernels::reference {

inline constexpr double normalize_epsilon = 1e-6;

template <class Real>
Real sigmoid(Real x) {
    return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
}

template <class Real>
Real softplus(Real x) {
    return std::max(x, Real(0)) + std::log1p(std::exp(-std::abs(x)));
}

template <class Real>
Real dot(const Real* x, const Real* y, int64_t n) {
    Real sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += x[i] * y[i];
    return sum;
}

/// y = silu(x), then y = x * rsqrt(x . x + eps), for one row.
template <class Real>
std::vector<Real> activate(const Real* x, int64_t n, bool silu, bool normalize) {
    std::vector<Real> y(x, x + n);
    if (silu) {
        for (Real& value : y) value *= sigmoid(value);
    }
    if (normalize) {
        const Real factor = 1 / std::sqrt(dot(y.data(), y.data(), n) + Real(normalize_epsilon));
        for (Real& value : y) value *= factor;
    }
    return y;
}

/// Gradient by x from the gradient by activate(x).
template <class Real>
void activate_backward(const Real* x, int64_t n, bool silu, bool normalize, std::vector<Real> gradient, Real* out) {
    if (normalize) {
        const std::vector<Real> before = activate(x, n, silu, false);
        const std::vector<Real> after = activate(x, n, silu, true);
        const Real factor = 1 / std::sqrt(dot(before.data(), before.data(), n) + Real(normalize_epsilon));
        const Real along = dot(after.data(), gradient.data(), n);
        for (int64_t i = 0; i < n; ++i) gradient[i] = factor * (gradient[i] - after[i] * along);
    }
    for (int64_t i = 0; i < n; ++i) {
        const Real s = sigmoid(x[i]);
        out[i] = silu ? gradient[i] * s * (1 + x[i] * (1 - s)) : gradient[i];
    }
}

}  // namespace amalgam::kernels::reference
