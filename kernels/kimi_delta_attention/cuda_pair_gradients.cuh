// SPDX-License-Identifier: Apache-2.0
// What pairs of tokens give the gradients of q, of k and of the decays between them: rows and columns of dP and Z
// (cuda_backward_chunks.cu), for the 16 tokens of a warp and a piece of 16 key channels (cuda_decays.cuh).
#pragma once

#include "kernels/kimi_delta_attention/cuda_decays.cuh"

namespace amalgam::kernels::kimi_delta {

/// Tokens scaled for pairs of different blocks: K by the decays to its block's end and from its start, Q from there.
template <int dim>
struct BlockTiles {
    Tiles<dim> to_k, from_k, from_q;
};

/// A warp's 16 x 16 block of dP or Z on the diagonal, and its transpose, as left operands without the diagonal itself.
struct DiagonalBlock {
    Left rows, columns;
    __device__ DiagonalBlock(const char* tile, int warp, int lane)
        : rows(load_piece_rows(tile, 16 * warp, warp, lane)),
          columns(load_block_transposed(tile, 16 * warp, warp, lane)) {
        const int i = lane / 4, j = lane % 4 * 2;
        const uint32_t others = (i == j ? 0U : 0xFFFFU) | (i == j + 1 ? 0U : 0xFFFF0000U);
        rows.x[0] &= others, rows.x[3] &= others, columns.x[0] &= others, columns.x[3] &= others;
    }
    /// The pairs of one level, with their rows as rows or with their columns.
    template <int size>
    __device__ Left level_rows(int lane) const {
        if constexpr (size == 8) return {{0, rows.x[1], 0, 0}};
        const uint32_t keep = mask<size>(lane / 4, lane % 4 * 2, 0, 1);
        return {{rows.x[0] & keep, 0, 0, rows.x[3] & keep}};
    }
    template <int size>
    __device__ Left level_columns(int lane) const {
        if constexpr (size == 8) return {{0, 0, columns.x[2], 0}};
        const uint32_t keep = mask<size>(lane % 4 * 2, lane / 4, 1, 0);
        return {{columns.x[0] & keep, 0, 0, columns.x[3] & keep}};
    }

  private:
    template <int size>
    static __device__ uint32_t mask(int row, int column, int row_step, int column_step) {
        return (is_pair<size>(row, column) ? 0xFFFFU : 0U) |
               (is_pair<size>(row + row_step, column + column_step) ? 0xFFFF0000U : 0U);
    }
};

/// Of x, the sums of a product, what its tokens get: `sum` += factor x, and `later` += sign (token x), with the token
/// as it was scaled for products.
__device__ inline void add_product(float (&sum)[8], float (&later)[8], float sign, const float (&x)[8],
                                   const Left& token, const float (&factor)[8]) {
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        later[e] += sign * (e % 2 == 0 ? low_half(token.x[e / 2]) : high_half(token.x[e / 2])) * x[e];
        sum[e] += factor[e] * x[e];
    }
}

/// What pairs give of a piece's 8 elements: to q, to k, and to what decays at and before its tokens get. In that a pair
/// behind such a decay must cancel, its row's part against its column's: both are made of the same rounded factors.
struct PairSums {
    float q[8] = {}, k[8] = {}, later[8] = {};
};

/// Pairs of level `size` < 16.
template <int size>
__device__ inline void add_level(PairSums& sums, const float (&q)[8], const float (&k)[8], PieceDecays& decays,
                                 const DiagonalBlock& dP, const DiagonalBlock& Z, int lane) {
    float factor[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) factor[e] = decays.factor<size>(e, lane);
    const Left scaled_q = scaled(q, factor), scaled_k = scaled(k, factor);
    const Left right_k = transpose(scaled_k), right_q = transpose(scaled_q);
    {
        float x[8] = {};
        multiply_rows(x, dP.level_rows<size>(lane), right_k);
        add_product(sums.q, sums.later, 1.0F, x, scaled_q, factor);
    }
    {
        float x[8] = {};
        multiply_rows(x, Z.level_rows<size>(lane), right_k);
        add_product(sums.k, sums.later, 1.0F, x, scaled_k, factor);
    }
    float x[8] = {};
    multiply_rows(x, Z.level_columns<size>(lane), right_k);
    multiply_rows(x, dP.level_columns<size>(lane), right_q);
    add_product(sums.k, sums.later, -1.0F, x, scaled_k, factor);
    decays.join<size>(lane);
}

/// Pairs among this warp's 16 tokens, each with others, whatever their decays; `decays` of one token each.
__device__ inline void add_levels(PairSums& sums, const float (&q)[8], const float (&k)[8], PieceDecays& decays,
                                  const DiagonalBlock& dP, const DiagonalBlock& Z, int lane) {
    add_level<1>(sums, q, k, decays, dP, Z, lane);
    add_level<2>(sums, q, k, decays, dP, Z, lane);
    add_level<4>(sums, q, k, decays, dP, Z, lane);
    add_level<8>(sums, q, k, decays, dP, Z, lane);
}

/// The same where no decay is steep.
__device__ inline void add_diagonal(PairSums& sums, const float (&q)[8], const float (&k)[8],
                                    const MiddleFactors& middle, const DiagonalBlock& dP, const DiagonalBlock& Z) {
    const Left row_q = scaled(q, middle.row), row_k = scaled(k, middle.row), column_k = scaled(k, middle.column);
    {
        const Left right = transpose(column_k);
        float x[8] = {};
        multiply_rows(x, dP.rows, right);
        add_product(sums.q, sums.later, 1.0F, x, row_q, middle.row);
        float y[8] = {};
        multiply_rows(y, Z.rows, right);
        add_product(sums.k, sums.later, 1.0F, y, row_k, middle.row);
    }
    float x[8] = {};
    multiply_rows(x, dP.columns, transpose(row_q));
    multiply_rows(x, Z.columns, transpose(row_k));
    add_product(sums.k, sums.later, -1.0F, x, column_k, middle.column);
}

/// Pairs of this warp's tokens with those of other blocks. `p` is the piece of the tile, decays joined to 16 tokens.
template <int dim>
__device__ inline void add_blocks(PairSums& sums, const float (&from)[8], const float (&to)[8],
                                  const BlockTiles<dim>& scaled, const BlockDecays<dim>& decays_between, const char* dP,
                                  const char* Z, int tile, int p, int warp, int lane) {
    const float* between = &decays_between[0][64 * tile + 16 * p + lane % 4 * 2];
    const auto pass = [&](float(&x)[8], int block) {
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float2 decay = *reinterpret_cast<const float2*>(between + block * dim + 8 * h);
#pragma unroll
            for (int r = 0; r < 2; ++r) x[4 * h + 2 * r] *= decay.x, x[4 * h + 2 * r + 1] *= decay.y;
        }
    };
    {
        float x[8] = {}, y[8] = {};
#pragma unroll 1
        for (int block = 0; block < warp; ++block) {  // earlier tokens, in order
            if (block > 0) pass(x, block), pass(y, block);
            const Left right = load_piece_transposed(scaled.to_k[tile], 16 * block, p, lane);
            multiply_rows(x, load_piece_rows(dP, 16 * warp, block, lane), right);
            multiply_rows(y, load_piece_rows(Z, 16 * warp, block, lane), right);
        }
        add_product(sums.q, sums.later, 1.0F, x, load_piece_rows(scaled.from_q[tile], 16 * warp, p, lane), from);
        add_product(sums.k, sums.later, 1.0F, y, load_piece_rows(scaled.from_k[tile], 16 * warp, p, lane), from);
    }
    float x[8] = {};
#pragma unroll 1
    for (int block = 3; block > warp; --block) {  // later ones, in reverse
        if (block < 3) pass(x, block);
        multiply_rows(x, load_block_transposed(dP, 16 * block, warp, lane),
                      load_piece_transposed(scaled.from_q[tile], 16 * block, p, lane));
        multiply_rows(x, load_block_transposed(Z, 16 * block, warp, lane),
                      load_piece_transposed(scaled.from_k[tile], 16 * block, p, lane));
    }
    add_product(sums.k, sums.later, -1.0F, x, load_piece_rows(scaled.to_k[tile], 16 * warp, p, lane), to);
}

}  // namespace amalgam::kernels::kimi_delta
