// SPDX-License-Identifier: Apache-2.0
#pragma once

// Register-blocked matrix products: a few rows times a few vectors of columns are summed in registers over the whole
// summed dimension, with the layouts of operand.h.

#include <type_traits>

#include "kernels/isa/operand.h"

/// Sums stay in registers only where everything that touches them is inlined.
#define AMALGAM_INLINE inline __attribute__((always_inline))

namespace amalgam::kernels::AMALGAM_ISA {

/// The sums of `rows` x `vectors * lanes` elements, held in registers.
template <int rows, int vectors>
struct Sums {
    static constexpr int n_rows = rows;
    static constexpr int n_vectors = vectors;
    Vector at[rows][vectors];

    AMALGAM_INLINE void clear() {
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
#pragma GCC unroll 4
            for (int n = 0; n < vectors; ++n) at[r][n] = zero();
        }
    }

    AMALGAM_INLINE void scale_row(int r, Vector factor) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; ++n) at[r][n] = mul(at[r][n], factor);
    }

    /// at[r][.] = factor at[r][.] + value_factor values[.]
    AMALGAM_INLINE void combine_row(int r, Vector factor, Vector value_factor, const float* values) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; ++n) {
            at[r][n] = fma(value_factor, load(values + n * lanes), mul(factor, at[r][n]));
        }
    }

    /// at[r][.] += factor at[s][.]
    AMALGAM_INLINE void add_row(int r, Vector factor, int s) {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; ++n) at[r][n] = fma(factor, at[s][n], at[r][n]);
    }

    /// Stores the first `size` elements of a row.
    template <class Element>
    AMALGAM_INLINE void store_row(int r, Element* to, int size) const {
#pragma GCC unroll 4
        for (int n = 0; n < vectors; ++n) store_first(to + n * lanes, at[r][n], size - n * lanes);
    }

    /// at[r][.] += sum over units u in [begin, end) of left(r, u) * right(u, .), where
    /// left(r, u) = left[r * row_stride + u * unit_stride] and right(u, .) starts at right[u * right_stride].
    AMALGAM_INLINE void add_product(const Unit* left, int row_stride, int unit_stride, const Unit* right,
                                    int right_stride, int begin, int end) {
        left += begin * unit_stride;
        right += begin * right_stride;
        for (int u = begin; u < end; ++u) {
            Vector b[vectors];
#pragma GCC unroll 4
            for (int n = 0; n < vectors; ++n) b[n] = load_units(right + n * lanes);
#pragma GCC unroll 16
            for (int r = 0; r < rows; ++r) {
                const Vector a = broadcast_unit(left + r * row_stride);
#pragma GCC unroll 4
                for (int n = 0; n < vectors; ++n) at[r][n] = multiply_units(a, b[n], at[r][n]);
            }
            left += unit_stride;
            right += right_stride;
        }
    }
};

/// sums = the values at `from`, row r times factor(r).
template <class S, class Factor>
AMALGAM_INLINE void load_scaled(S& sums, const float* from, int stride, Factor factor) {
#pragma GCC unroll 16
    for (int r = 0; r < S::n_rows; ++r) {
        const Vector of_row = factor(r);
#pragma GCC unroll 4
        for (int n = 0; n < S::n_vectors; ++n) sums.at[r][n] = mul(of_row, load(from + r * stride + n * lanes));
    }
}

template <class S>
AMALGAM_INLINE void store_values(const S& sums, float* to, int stride) {
#pragma GCC unroll 16
    for (int r = 0; r < S::n_rows; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < S::n_vectors; ++n) store(to + r * stride + n * lanes, sums.at[r][n]);
    }
}

/// Writes the sums in the `pairs` layout; `to` is the place of their first unit.
template <class S>
AMALGAM_INLINE void store_pairs(const S& sums, Unit* to, int stride) {
#pragma GCC unroll 16
    for (int r = 0; r < S::n_rows; r += unit_depth) {
#pragma GCC unroll 4
        for (int n = 0; n < S::n_vectors; ++n) {
            Unit* unit = to + r / unit_depth * stride + n * lanes;
#ifdef __AVX512BF16__
            store_pair(unit, sums.at[r][n], sums.at[r + 1][n]);
#else
            store(unit, sums.at[r][n]);
#endif
        }
    }
}

inline constexpr int row_block = 4;                       ///< Rows that one set of sums covers.
inline constexpr int vector_block = lanes == 16 ? 4 : 2;  ///< Vectors of columns that it covers at most.
inline constexpr int column_block = vector_block * lanes;

/// Calls visit(std::integral_constant<int, vectors>, first_column) for blocks that cover `cols` columns, a multiple
/// of 16.
template <class Visit>
AMALGAM_INLINE void for_column_blocks(int cols, Visit visit) {
    int c = 0;
    for (; c + column_block <= cols; c += column_block) visit(std::integral_constant<int, vector_block>{}, c);
    if constexpr (vector_block == 4) {
        const int rest = (cols - c) / lanes;
        if (rest == 3) visit(std::integral_constant<int, 3>{}, c);
        if (rest == 2) visit(std::integral_constant<int, 2>{}, c);
        if (rest == 1) visit(std::integral_constant<int, 1>{}, c);
    }
}

/// Sums of X Y^T on and below the diagonal, in blocks of 16 rows whose columns end with the diagonal block: calls
/// visit(sums, first_row, first_column) for pieces that cover it. `depth` is the number of units summed.
template <class Visit>
AMALGAM_INLINE void for_lower_products(const Unit* left, const Unit* right_transposed, int n_rows, int depth,
                                       int right_stride, Visit visit) {
    for (int block = 0; block < n_rows; block += 16) {
        const auto piece = [&](auto rows, auto vectors, int column) __attribute__((always_inline)) {
            for (int i = block; i < block + 16; i += rows()) {
                Sums<rows(), vectors()> sums;
                sums.clear();
                sums.add_product(left + i * depth, depth, 1, right_transposed + column, right_stride, 0, depth);
                visit(sums, i, column);
            }
        };
        for_column_blocks(
            block + 16, [&](auto vectors, int column) __attribute__((always_inline)) {
                if constexpr (vectors() == 1) {
                    piece(std::integral_constant<int, 16>{}, vectors, column);
                } else if constexpr (vectors() * lanes <= 48 && lanes == 16) {
                    piece(std::integral_constant<int, 8>{}, vectors, column);
                } else {
                    piece(std::integral_constant<int, 4>{}, vectors, column);
                }
            });
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
