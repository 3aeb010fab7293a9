// SPDX-License-Identifier: Apache-2.0
#pragma once

// Operands of the small matrix products in product.h. A product advances in steps of one 32-bit `Unit` along the
// summed dimension: one fp32 value, or two neighbouring bf16 values where the processor multiplies bf16 pairs.
// A tile X (row-major fp32 values) can be laid out as
//     rows:       rows[i][u]  = X[i][step u]             left operand of X Y and X Y^T
//     pairs:      pairs[u][j] = X[step u][j]             right operand of Y X, and left operand of X^T Y
//     transposed: transposed[u][j] = X[j][step u]        right operand of Y X^T
// For fp32 the first two are the tile itself.

#include <cstdint>
#include <cstring>

#include "kernels/isa/vector.h"

namespace amalgam::kernels::AMALGAM_ISA {

#ifdef __AVX512BF16__

using Unit = uint32_t;
using Stored = uint16_t;  ///< Element type in which tiles are kept between the passes.
inline constexpr int unit_depth = 2;

inline Vector broadcast_unit(const Unit* p) {
    return _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(*p)));
}
inline Vector load_units(const Unit* p) {
    return _mm512_castsi512_ps(_mm512_loadu_si512(p));
}
inline Vector multiply_units(Vector x, Vector y, Vector sum) {
    return _mm512_dpbf16_ps(sum, reinterpret_cast<__m512bh>(x), reinterpret_cast<__m512bh>(y));
}
/// 16 units (even[j], odd[j]) from two rows of fp32 values.
inline void store_pair(Unit* p, Vector even, Vector odd) {
    const __m512i low = _mm512_cvtepu16_epi32(round_to_bf16(even));
    const __m512i high = _mm512_slli_epi32(_mm512_cvtepu16_epi32(round_to_bf16(odd)), 16);
    _mm512_storeu_si512(p, _mm512_or_si512(low, high));
}

#else

using Unit = float;
using Stored = float;
inline constexpr int unit_depth = 1;

inline Vector broadcast_unit(const Unit* p) {
    return broadcast(*p);
}
inline Vector load_units(const Unit* p) {
    return load(p);
}
inline Vector multiply_units(Vector x, Vector y, Vector sum) {
    return fma(x, y, sum);
}

#endif

/// Memory for the `rows` or `pairs` layout of a tile: its own place for bf16, the tile itself for fp32.
inline Unit* units_of(float* tile, Unit* place) {
    if constexpr (unit_depth == 1) return reinterpret_cast<Unit*>(tile);
    return place;
}

/// Fills the `rows` layout (nothing to do for fp32). `cols` is a multiple of 16 here and below.
inline void make_rows(const float* tile, Unit* rows, int n_rows, int cols) {
    if constexpr (unit_depth == 2) {
        auto* out = reinterpret_cast<uint16_t*>(rows);
        for (int at = 0; at < n_rows * cols; at += lanes) store_first(out + at, load(tile + at), lanes);
    }
}

/// Fills the `pairs` layout (nothing to do for fp32); n_rows must be even.
inline void make_pairs([[maybe_unused]] const float* tile, [[maybe_unused]] Unit* pairs, [[maybe_unused]] int n_rows,
                       [[maybe_unused]] int cols) {
#ifdef __AVX512BF16__
    for (int i = 0; i < n_rows; i += 2) {
        for (int j = 0; j < cols; j += lanes) {
            store_pair(pairs + i / 2 * cols + j, load(tile + i * cols + j), load(tile + (i + 1) * cols + j));
        }
    }
#endif
}

/// The same two for the lower triangle of a square tile, in blocks of 16 rows up to the diagonal block's end.
inline void make_lower_rows(const float* tile, Unit* rows, int n_rows, int cols) {
    if constexpr (unit_depth == 2) {
        auto* out = reinterpret_cast<uint16_t*>(rows);
        for (int i = 0; i < n_rows; ++i) {
            for (int j = 0; j <= i; j += lanes) store_first(out + i * cols + j, load(tile + i * cols + j), lanes);
        }
    }
}
inline void make_lower_pairs([[maybe_unused]] const float* tile, [[maybe_unused]] Unit* pairs,
                             [[maybe_unused]] int n_rows, [[maybe_unused]] int cols) {
#ifdef __AVX512BF16__
    for (int i = 0; i < n_rows; i += 2) {
        for (int j = 0; j <= i; j += lanes) {
            store_pair(pairs + i / 2 * cols + j, load(tile + i * cols + j), load(tile + (i + 1) * cols + j));
        }
    }
#endif
}

/// The `pairs` layout of a tile whose row i is multiplied by scale[i], in its own place for fp32 also.
inline void make_scaled_pairs(const float* tile, const float* scale, Unit* pairs, int n_rows, int cols) {
    for (int i = 0; i < n_rows; i += unit_depth) {
        for (int j = 0; j < cols; j += lanes) {
            const Vector first = mul(broadcast(scale[i]), load(tile + i * cols + j));
#ifdef __AVX512BF16__
            store_pair(pairs + i / 2 * cols + j, first, mul(broadcast(scale[i + 1]), load(tile + (i + 1) * cols + j)));
#else
            store(pairs + i * cols + j, first);
#endif
        }
    }
}

#ifdef __AVX512F__

/// Transposes a block of 16 x 16 words.
inline void transpose_block(const float* in, int in_stride, float* out, int out_stride) {
    __m512 a[16];
    __m512 b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_ps(in + i * in_stride);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        for (int half = 0; half < 2; ++half) {
            a[i + 2 * half] = _mm512_shuffle_ps(b[i + half], b[i + 2 + half], 0x44);
            a[i + 2 * half + 1] = _mm512_shuffle_ps(b[i + half], b[i + 2 + half], 0xEE);
        }
    }
    // a[4 g + c] holds column c of each 4-column group for rows 4 g .. 4 g + 3, one group per 128-bit quarter.
    for (int c = 0; c < 4; ++c) {
        const __m512 low0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0x88);
        const __m512 low1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0x88);
        const __m512 high0 = _mm512_shuffle_f32x4(a[c], a[4 + c], 0xDD);
        const __m512 high1 = _mm512_shuffle_f32x4(a[8 + c], a[12 + c], 0xDD);
        _mm512_storeu_ps(out + c * out_stride, _mm512_shuffle_f32x4(low0, low1, 0x88));
        _mm512_storeu_ps(out + (4 + c) * out_stride, _mm512_shuffle_f32x4(high0, high1, 0x88));
        _mm512_storeu_ps(out + (8 + c) * out_stride, _mm512_shuffle_f32x4(low0, low1, 0xDD));
        _mm512_storeu_ps(out + (12 + c) * out_stride, _mm512_shuffle_f32x4(high0, high1, 0xDD));
    }
}
inline constexpr int transpose_size = 16;

#else

/// Transposes a block of 8 x 8 words.
inline void transpose_block(const float* in, int in_stride, float* out, int out_stride) {
    __m256 a[8];
    __m256 b[8];
    for (int i = 0; i < 8; ++i) a[i] = _mm256_loadu_ps(in + i * in_stride);
    for (int i = 0; i < 8; i += 2) {
        b[i] = _mm256_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm256_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        for (int half = 0; half < 2; ++half) {
            a[i + 2 * half] = _mm256_shuffle_ps(b[i + half], b[i + 2 + half], 0x44);
            a[i + 2 * half + 1] = _mm256_shuffle_ps(b[i + half], b[i + 2 + half], 0xEE);
        }
    }
    for (int c = 0; c < 4; ++c) {
        _mm256_storeu_ps(out + c * out_stride, _mm256_permute2f128_ps(a[c], a[4 + c], 0x20));
        _mm256_storeu_ps(out + (4 + c) * out_stride, _mm256_permute2f128_ps(a[c], a[4 + c], 0x31));
    }
}
inline constexpr int transpose_size = 8;

#endif

/// Fills the `transposed` layout from the `rows` layout of a tile of n_rows x cols values. n_rows and cols are
/// multiples of 16; an odd number of 8-unit groups can only appear for bf16, whose last half block is then copied
/// word by word.
inline void make_transposed(const Unit* rows, Unit* transposed, int n_rows, int cols, int out_stride) {
    const int units = cols / unit_depth;
    const auto* in = reinterpret_cast<const float*>(rows);
    auto* out = reinterpret_cast<float*>(transposed);
    const int whole = units - units % transpose_size;
    for (int i = 0; i < n_rows; i += transpose_size) {
        for (int u = 0; u < whole; u += transpose_size) {
            transpose_block(in + i * units + u, units, out + u * out_stride + i, out_stride);
        }
    }
    for (int u = whole; u < units; ++u) {
        for (int i = 0; i < n_rows; ++i) transposed[u * out_stride + i] = rows[i * units + u];
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
