// SPDX-License-Identifier: Apache-2.0
#pragma once

// One vector of fp32 values in the widest registers that the including file is compiled for. Included once per
// instruction set, each time inside its own namespace AMALGAM_ISA, so that no function compiled for a newer
// processor can be linked into the code for an older one.

#include <immintrin.h>

#include <cstdint>

namespace amalgam::kernels::AMALGAM_ISA {

#ifdef __AVX512F__

using Vector = __m512;
inline constexpr int lanes = 16;

inline Vector zero() {
    return _mm512_setzero_ps();
}
inline Vector broadcast(float x) {
    return _mm512_set1_ps(x);
}
inline Vector load(const float* p) {
    return _mm512_loadu_ps(p);
}
inline void store(float* p, Vector x) {
    _mm512_storeu_ps(p, x);
}
inline Vector add(Vector x, Vector y) {
    return _mm512_add_ps(x, y);
}
inline Vector sub(Vector x, Vector y) {
    return _mm512_sub_ps(x, y);
}
inline Vector mul(Vector x, Vector y) {
    return _mm512_mul_ps(x, y);
}
inline Vector fma(Vector x, Vector y, Vector z) {
    return _mm512_fmadd_ps(x, y, z);
}
/// A NaN in y survives min and max.
inline Vector min(Vector x, Vector y) {
    return _mm512_min_ps(x, y);
}
inline Vector max(Vector x, Vector y) {
    return _mm512_max_ps(x, y);
}
inline Vector round_to_integer(Vector x) {
    return _mm512_roundscale_ps(x, 0);
}
inline Vector scale_by_power(Vector x, Vector n) {
    return _mm512_scalef_ps(x, n);
}
inline Vector absolute(Vector x) {
    return _mm512_abs_ps(x);
}
inline Vector divide(Vector x, Vector y) {
    return _mm512_div_ps(x, y);
}
inline Vector approximate_reciprocal(Vector x) {
    return _mm512_rcp14_ps(x);
}
inline float sum(Vector x) {
    return _mm512_reduce_add_ps(x);
}

using Lanes = __mmask16;
inline Lanes first_lanes(int n) {
    return n >= lanes ? static_cast<__mmask16>(0xFFFF) : static_cast<__mmask16>((1U << (n < 0 ? 0 : n)) - 1U);
}
inline Vector choose(Lanes which, Vector x, Vector otherwise) {
    return _mm512_mask_blend_ps(which, otherwise, x);
}
inline Vector keep_first(Vector x, int n) {
    return _mm512_maskz_mov_ps(first_lanes(n), x);
}
inline Vector load_first(const float* p, int n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
inline void store_first(float* p, Vector x, int n) {
    _mm512_mask_storeu_ps(p, first_lanes(n), x);
}

inline __m256i round_to_bf16(Vector x) {
#ifdef __AVX512BF16__
    return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x));
#else
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7FFF)), odd);
    const __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    const __mmask16 nan = _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(_mm512_mask_mov_epi32(rounded, nan, quiet), 16));
#endif
}
inline Vector widen_bf16(__m256i x) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
}
inline Vector load_first(const uint16_t* p, int n) {
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(n), p));
}
inline void store_first(uint16_t* p, Vector x, int n) {
    _mm256_mask_storeu_epi16(p, first_lanes(n), round_to_bf16(x));
}

#else

using Vector = __m256;
inline constexpr int lanes = 8;

inline Vector zero() {
    return _mm256_setzero_ps();
}
inline Vector broadcast(float x) {
    return _mm256_set1_ps(x);
}
inline Vector load(const float* p) {
    return _mm256_loadu_ps(p);
}
inline void store(float* p, Vector x) {
    _mm256_storeu_ps(p, x);
}
inline Vector add(Vector x, Vector y) {
    return _mm256_add_ps(x, y);
}
inline Vector sub(Vector x, Vector y) {
    return _mm256_sub_ps(x, y);
}
inline Vector mul(Vector x, Vector y) {
    return _mm256_mul_ps(x, y);
}
inline Vector fma(Vector x, Vector y, Vector z) {
    return _mm256_fmadd_ps(x, y, z);
}
/// A NaN in y survives min and max.
inline Vector min(Vector x, Vector y) {
    return _mm256_min_ps(x, y);
}
inline Vector max(Vector x, Vector y) {
    return _mm256_max_ps(x, y);
}
inline Vector round_to_integer(Vector x) {
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/// x * 2^n for n in [-126, 127].
inline Vector scale_by_power(Vector x, Vector n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
    return _mm256_mul_ps(x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)));
}
inline Vector absolute(Vector x) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0F), x);
}
inline Vector divide(Vector x, Vector y) {
    return _mm256_div_ps(x, y);
}
inline Vector approximate_reciprocal(Vector x) {
    return _mm256_rcp_ps(x);
}
inline float sum(Vector x) {
    const __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

using Lanes = __m256i;
inline Lanes first_lanes(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline Vector choose(Lanes which, Vector x, Vector otherwise) {
    return _mm256_blendv_ps(otherwise, x, _mm256_castsi256_ps(which));
}
inline Vector keep_first(Vector x, int n) {
    return _mm256_and_ps(x, _mm256_castsi256_ps(first_lanes(n)));
}
inline Vector load_first(const float* p, int n) {
    return _mm256_maskload_ps(p, first_lanes(n));
}
inline void store_first(float* p, Vector x, int n) {
    _mm256_maskstore_ps(p, first_lanes(n), x);
}

inline __m128i round_to_bf16(Vector x) {
    const __m256i bits = _mm256_castps_si256(x);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7FFF)), odd);
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    const __m256i high = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(high), _mm256_extracti128_si256(high, 1));
}
inline Vector widen_bf16(__m128i x) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
}
/// Rows are multiples of 8 elements, so a vector of 8 is whole or absent.
inline Vector load_first(const uint16_t* p, int n) {
    return n > 0 ? widen_bf16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))) : zero();
}
inline void store_first(uint16_t* p, Vector x, int n) {
    if (n > 0) _mm_storeu_si128(reinterpret_cast<__m128i*>(p), round_to_bf16(x));
}

#endif

}  // namespace amalgam::kernels::AMALGAM_ISA
