// SPDX-License-Identifier: Apache-2.0
// The exponential function that softmax, losses and gates need: accurate over the whole range of floats, with exact
// limits, and a NaN stays a NaN. (kernels/isa/elementary.h has the cheaper one of the chunk mathematics, kept finite.)
#pragma once

#include "kernels/elementwise/elements.h"

namespace amalgam::kernels::AMALGAM_ISA {

// e^x within 1.1 ulp where the result is normal (tests/kernels/exponential_test.cpp), gradual or flushed underflow to
// 0, infinity above 88.73. x = n ln 2 + r with |r| <= ln(2) / 2, e^r = 1 + r + r^2 P(r), where P of degree 4 minimises
// the largest relative error of e^r (3e-9).
inline Vector accurate_exponential(Vector x) {
    // Beyond these bounds the result is 0 or infinity whatever x is. x stands second, so that a NaN survives.
    x = min(broadcast(89.0F), max(broadcast(-104.0F), x));
    // Adding 1.5 * 2^23 rounds to an integer, which the low bits of the sum then hold.
    const Vector shift = broadcast(12582912.0F);
    const Vector shifted = fma(x, broadcast(1.44269504F), shift);
    const Vector n = shifted - shift;
    // ln 2 in two floats, the first short enough for n times it to be exact.
    Vector r = fma(n, broadcast(-0.693145752F), x);
    r = fma(n, broadcast(-1.42860677e-6F), r);
    Vector p = broadcast(0.0013814467F);
    p = fma(p, r, broadcast(0.008368781F));
    p = fma(p, r, broadcast(0.041668393F));
    p = fma(p, r, broadcast(0.1666652F));
    p = fma(p, r, broadcast(0.49999994F));
    p = fma(p, r * r, r) + broadcast(1.0F);
#if defined(__AVX512F__)
    return _mm512_scalef_ps(p, n);
#else
    // 2^n in two factors: n lies in [-150, 128], more than one float's exponent reaches.
    typedef std::int32_t Integers __attribute__((vector_size(4 * lanes)));
    const Integers exponent = (Integers)shifted - (Integers)shift;
    const Integers half = exponent >> 1;
    const Vector first = (Vector)((half + 127) << 23);
    const Vector second = (Vector)((exponent - half + 127) << 23);
    return p * first * second;
#endif
}

inline Vector accurate_sigmoid(Vector x) {
    return broadcast(1.0F) / (broadcast(1.0F) + accurate_exponential(zero() - x));
}

}  // namespace amalgam::kernels::AMALGAM_ISA
