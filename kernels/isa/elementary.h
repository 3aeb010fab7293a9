// SPDX-License-Identifier: Apache-2.0
#pragma once

// Elementary functions over vectors of fp32 values, relative error about 1e-7 unless said otherwise.

#include "kernels/isa/vector.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// e^x, with x taken as at most 87 and as at least -87 (results outside stay finite and positive).
inline Vector exponential(Vector x) {
    x = max(broadcast(-87.0F), min(broadcast(87.0F), x));
    const Vector n = round_to_integer(mul(x, broadcast(1.44269504F)));
    // ln 2 in two parts, so that the remainder is exact to fp32.
    const Vector r = fma(n, broadcast(2.12194440e-4F), fma(n, broadcast(-0.693359375F), x));
    Vector p = broadcast(1.0F / 720.0F);
    p = fma(p, r, broadcast(1.0F / 120.0F));
    p = fma(p, r, broadcast(1.0F / 24.0F));
    p = fma(p, r, broadcast(1.0F / 6.0F));
    p = fma(p, r, broadcast(0.5F));
    p = fma(p, r, broadcast(1.0F));
    p = fma(p, r, broadcast(1.0F));
    return scale_by_power(p, n);
}

/// e^x for x <= 0 that reaches an exact zero below -87, where decays are meant to vanish.
inline Vector decay_exponential(Vector x) {
    const Vector kept = exponential(min(zero(), x));
#ifdef __AVX512F__
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, broadcast(-87.0F), _CMP_NLT_UQ), kept);
#else
    return _mm256_and_ps(kept, _mm256_cmp_ps(x, broadcast(-87.0F), _CMP_NLT_UQ));
#endif
}

/// 1 / x for 1 <= x < 1e38: the processor's estimate and one Newton step.
inline Vector reciprocal(Vector x) {
    const Vector y = approximate_reciprocal(x);
    return mul(y, fma(mul(broadcast(-1.0F), x), y, broadcast(2.0F)));
}

inline Vector sigmoid(Vector x) {
    return reciprocal(add(broadcast(1.0F), exponential(sub(zero(), x))));
}

/// The same to a relative error of 1e-4, for values that are kept in bf16.
inline Vector coarse_sigmoid(Vector x) {
#ifdef __AVX512F__
    // 2^t = 2^n 2^f; the polynomial in f is the Taylor series, and e^-x may overflow to infinity, whose reciprocal is
    // 0.
    const Vector t = mul(x, broadcast(-1.44269504F));
    const Vector n = round_to_integer(t);
    const Vector f = sub(t, n);
    Vector p = broadcast(9.618129e-3F);
    p = fma(p, f, broadcast(5.5504109e-2F));
    p = fma(p, f, broadcast(2.4022651e-1F));
    p = fma(p, f, broadcast(6.9314718e-1F));
    p = fma(p, f, broadcast(1.0F));
    return approximate_reciprocal(add(broadcast(1.0F), scale_by_power(p, n)));
#else
    return sigmoid(x);
#endif
}

/// log(1 + e^x) = max(x, 0) + 2 atanh(u / (2 + u)) with u = e^-|x|, the series cut at z^15 for z <= 1/3.
inline Vector softplus(Vector x) {
    const Vector u = exponential(sub(zero(), absolute(x)));
    const Vector z = divide(u, add(u, broadcast(2.0F)));
    const Vector z2 = mul(z, z);
    Vector p = broadcast(1.0F / 15.0F);
    p = fma(p, z2, broadcast(1.0F / 13.0F));
    p = fma(p, z2, broadcast(1.0F / 11.0F));
    p = fma(p, z2, broadcast(1.0F / 9.0F));
    p = fma(p, z2, broadcast(1.0F / 7.0F));
    p = fma(p, z2, broadcast(1.0F / 5.0F));
    p = fma(p, z2, broadcast(1.0F / 3.0F));
    p = fma(p, z2, broadcast(1.0F));
    return add(max(zero(), x), mul(add(z, z), p));
}

}  // namespace amalgam::kernels::AMALGAM_ISA
