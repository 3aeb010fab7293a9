// SPDX-License-Identifier: Apache-2.0
// Decays of a chunk, and the sums over pairs of tokens in which they stand. Neither needs the logarithm of a product of
// decays: a decay of many tokens is the product of those of its halves. Every factor formed is at most 1, so nothing
// overflows whatever the gates are, and a factor vanishes only where what it multiplies does.
//
// A pair (i, j), i > j, belongs to the level h = 1, 2, 4, .. 32 at which i and j are in the upper and the lower half of
// the same block of 2 h tokens. There sum_c X_ic K_jc decay_c(j .. i) is the product of X_i scaled by the decays from
// the upper half's start to i, and K_j scaled by those from behind j to the lower half's end: of each token one scaled
// copy a level. The four lowest levels at once come from MiddleFactors unless decays are steep.
//
// A warp has 16 tokens, taken in pieces of 16 key channels. Element e of a thread's 8 (with g = lane / 4, q = lane % 4)
// is token 8 (e / 2 % 2) + g, channel 8 (e / 4) + 2 q + e % 2: as in `Left`, and as a 16 x 16 result has it.
#pragma once

#include "kernels/cuda/fragments.cuh"
#include "kernels/kimi_delta_attention/cuda_call.cuh"

namespace amalgam::kernels::kimi_delta {

/// 64 tokens of all key channels.
template <int dim>
using Tiles = char[dim / 64][tile_bytes];

constexpr float log2_e = 1.44269504F;

__device__ inline float inverse_fast(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/// log(1 + e^z), times log2(e)
__device__ inline float softplus_log2(float z) {
    return fmaxf(z, 0.0F) * log2_e + __log2f(1.0F + exp2_fast(-fabsf(z) * log2_e));
}
__device__ inline float sigmoid_fast(float z) {
    return inverse_fast(1.0F + exp2_fast(-z * log2_e));
}

/// The gate of one head: log decays bound sigmoid(rate z) where `bounded`, else -rate softplus(z), with z = a +
/// dt_bias.
template <bool bounded>
struct Gate {
    float rate, bound;
    __device__ Gate(const ForwardCall& call, int head) : rate(expf(call.A_log[head])), bound(call.lower_bound) {}
    /// The log decay, times log2(e).
    __device__ float log2_decay(float z) const {
        if constexpr (bounded) return bound * log2_e * sigmoid_fast(rate * z);
        return -rate * softplus_log2(z);
    }
    /// Derivatives of the log decay by z, and by A_log.
    __device__ float2 derivatives(float z) const {
        if constexpr (bounded) {
            const float slope = bound * rate * sigmoid_fast(rate * z) * sigmoid_fast(-rate * z);
            return {slope, slope * z};
        }
        return {-rate * sigmoid_fast(z), log2_decay(z) * (1.0F / log2_e)};
    }
};

/// Added to z where there is no token: then either gate gives a decay of 1.
__device__ inline float2 absent_rows(int top, int tokens) {
    constexpr float no_gate = -1e30F;
    return {top < tokens ? 0.0F : no_gate, top + 8 < tokens ? 0.0F : no_gate};
}

/// Decays of a piece's 8 elements in blocks of 1 token, which `join` makes blocks of 2, 4, 8 and 16.
struct PieceDecays {
    float from[8];  ///< from the block's first token to and with this one
    float to[8];    ///< from behind this token to the block's end
    float all[8];   ///< of the whole block

    __device__ explicit PieceDecays(const float (&decay)[8]) {
#pragma unroll
        for (int e = 0; e < 8; ++e) from[e] = all[e] = decay[e], to[e] = 1.0F;
    }
    /// Whether the token of element e is in the upper half of its block of twice `size` tokens.
    template <int size>
    static __device__ bool upper(int e, int lane) {
        return size == 8 ? e / 2 % 2 == 1 : (lane / 4 & size) != 0;
    }
    /// What scales the token at this level.
    template <int size>
    __device__ float factor(int e, int lane) const {
        return upper<size>(e, lane) ? from[e] : to[e];
    }
    template <int size>
    __device__ void join(int lane) {
        float other[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) other[e] = size == 8 ? all[e ^ 2] : __shfl_xor_sync(~0U, all[e], 4 * size);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            if (upper<size>(e, lane))
                from[e] *= other[e];
            else
                to[e] *= other[e];
            all[e] *= other[e];
        }
    }
};

/// The decays of one token each of a piece, from its raw gates. `channel` is the piece's first, `absent` from
/// absent_rows.
template <bool bounded>
__device__ inline void piece_decays(float (&decay)[8], const Left& gates, const Gate<bounded>& gate,
                                    const float* dt_bias, int channel, float2 absent, int lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const float* bias = dt_bias + channel + 8 * h + lane % 4 * 2;
        const float low = bias[0], high = bias[1];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const uint32_t pair = gates.x[2 * h + r];
            const float extra = r == 0 ? absent.x : absent.y;
            decay[4 * h + 2 * r] = exp2_fast(gate.log2_decay(low_half(pair) + (low + extra)));
            decay[4 * h + 2 * r + 1] = exp2_fast(gate.log2_decay(high_half(pair) + (high + extra)));
        }
    }
}

/// Factors by which the pairs of a warp's 16 tokens come from one product instead of four: around the middle of the 16,
/// decay(j .. i) = row_i column_j with row_i = decay(middle .. i), column = 1 / row. One of the two grows with the
/// decay: where it could leave the range of numbers ("steep": 8 tokens leave less than 2^-62, which no bound of -5
/// does), the levels are the way.
struct MiddleFactors {
    float row[8], column[8];
    bool steep;
    /// `decays` joined to 8 tokens. The same answer for all lanes.
    __device__ explicit MiddleFactors(const PieceDecays& decays) {
        float x[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] = e / 2 % 2 == 1 ? decays.from[e] : decays.to[e];
        *this = MiddleFactors(x);
    }
    /// From decays between the middle and a token.
    __device__ explicit MiddleFactors(const float (&x)[8]) {
        float least = 1.0F;
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float inverse = inverse_fast(x[e]);
            row[e] = e / 2 % 2 == 1 ? x[e] : inverse;
            column[e] = e / 2 % 2 == 1 ? inverse : x[e];
            least = fminf(least, x[e]);
        }
        steep = __any_sync(~0U, least < 2.168404e-19F);
    }
};

/// Decays of the chunk's four blocks of 16 tokens, by block and channel.
template <int dim>
using BlockDecays = float[4][dim];

/// Writes those of this warp's block, for a piece that has been joined to 16 tokens.
template <int dim>
__device__ inline void write_block_decays(BlockDecays<dim>& blocks, const PieceDecays& decays, int channel, int warp,
                                          int lane) {
    if (lane >= 4) return;
#pragma unroll
    for (int h = 0; h < 2; ++h)
        *reinterpret_cast<float2*>(&blocks[warp][channel + 8 * h + 2 * lane]) =
            make_float2(decays.all[4 * h], decays.all[4 * h + 1]);
}

/// Of blocks [first, end), for the thread's four channels of a piece: element e has [e / 4 * 2 + e % 2].
template <int dim>
__device__ inline void decays_of_blocks(float (&product)[4], const BlockDecays<dim>& blocks, int first, int end,
                                        int channel, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) product[i] = 1.0F;
#pragma unroll
    for (int b = 0; b < 4; ++b) {
        if (b < first || b >= end) continue;
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            const float2 x = *reinterpret_cast<const float2*>(&blocks[b][channel + 8 * h + lane % 4 * 2]);
            product[2 * h] *= x.x, product[2 * h + 1] *= x.y;
        }
    }
}
__device__ inline float of_channel(const float (&x)[4], int e) {
    return x[e / 4 * 2 + e % 2];
}

/// A piece of bf16, times a factor a row.
__device__ inline void unpack(float (&x)[8], const Left& piece, const float (&factor)[2]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
        x[2 * j] = low_half(piece.x[j]) * factor[j % 2];
        x[2 * j + 1] = high_half(piece.x[j]) * factor[j % 2];
    }
}
__device__ inline Left packed(const float (&x)[8]) {
    return {{pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7])}};
}
__device__ inline Left scaled(const float (&x)[8], const float (&factor)[8]) {
    return {{pack(x[0] * factor[0], x[1] * factor[1]), pack(x[2] * factor[2], x[3] * factor[3]),
             pack(x[4] * factor[4], x[5] * factor[5]), pack(x[6] * factor[6], x[7] * factor[7])}};
}

/// With a factor a channel.
__device__ inline Left scaled(const float (&x)[8], const float (&factor)[4]) {
    float y[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) y[e] = x[e] * of_channel(factor, e);
    return packed(y);
}

/// d += a b for 16 x 16 and 16 x 8 blocks, b as two registers.
__device__ inline void multiply(float* d, const Left& a, uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a.x[0]), "r"(a.x[1]), "r"(a.x[2]), "r"(a.x[3]), "r"(b0), "r"(b1));
}
/// d += X Y^T of two pieces, as a 16 x 16 result.
__device__ inline void multiply_transposed(float (&d)[8], const Left& x, const Left& y) {
    multiply(&d[0], x, y.x[0], y.x[2]);
    multiply(&d[4], x, y.x[1], y.x[3]);
}
/// The transposed 8 x 8 matrix.
__device__ inline uint32_t transpose(uint32_t x) {
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}
/// The right operand of a product whose rows are the tokens of a piece.
__device__ inline Left transpose(const Left& piece) {
    return {{transpose(piece.x[0]), transpose(piece.x[1]), transpose(piece.x[2]), transpose(piece.x[3])}};
}
/// d += a Y, Y from transpose(piece).
__device__ inline void multiply_rows(float (&d)[8], const Left& a, const Left& y) {
    multiply(&d[0], a, y.x[0], y.x[1]);
    multiply(&d[4], a, y.x[2], y.x[3]);
}

/// Of rows `row` .. `row` + 15 of `tile`, columns 16 k ..: in the order of Left, or as transpose(Left) has it.
__device__ inline Left load_piece_rows(const char* tile, int row, int k, int lane) {
    Left x;
    load_matrices(x.x, shared_address(tile) + tile_offset(row + lane % 16, 2 * k + lane / 16));
    return x;
}
__device__ inline Left load_piece_transposed(const char* tile, int row, int k, int lane) {
    Left x;
    load_matrices_transposed(x.x, shared_address(tile) + tile_offset(row + lane % 16, 2 * k + lane / 16));
    return x;
}
/// The left operand of a product with the transpose of that 16 x 16 block.
__device__ inline Left load_block_transposed(const char* tile, int row, int k, int lane) {
    Left x;
    load_matrices_transposed(x.x,
                             shared_address(tile) + tile_offset(row + lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2));
    return x;
}
__device__ inline void store_piece_rows(char* tile, int row, int k, const Left& x, int lane) {
    store_matrices(shared_address(tile) + tile_offset(row + lane % 16, 2 * k + lane / 16), x.x);
}

__device__ inline float bf16_at(const char* tile, int row, int column) {
    return __bfloat162float(
        *reinterpret_cast<const __nv_bfloat16*>(tile + tile_offset(row, column / 8) + column % 8 * 2));
}

/// The warp of a warpgroup, as a number that the compiler knows to be the same for all lanes.
__device__ inline int warp_of_group() {
    return __shfl_sync(~0U, static_cast<int>(threadIdx.x / 32), 0) % 4;
}

/// Whether row i and column j of the same 8 tokens are a pair of level `size` < 8.
template <int size>
__device__ inline bool is_pair(int i, int j) {
    return i / (2 * size) == j / (2 * size) && (i & size) != 0 && (j & size) == 0;
}

}  // namespace amalgam::kernels::kimi_delta
