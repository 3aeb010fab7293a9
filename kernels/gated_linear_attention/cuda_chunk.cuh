// SPDX-License-Identifier: Apache-2.0
// What the kernels that take all chunks at once share. Such a block has one chunk of one head, a warpgroup for 64 key
// channels and 64 value channels. It holds, where the chunk is not steep,
//     Qm = exp(G - G_mid) Q,  Km = exp(G_mid - G) K,  so that  sum_c Q_ic K_jc exp(G_ic - G_jc) = (Qm Km^T)_ij.
#pragma once

#include "kernels/gated_linear_attention/cuda_call.cuh"

namespace amalgam::kernels::linear_attention {

constexpr int parts = 4;  ///< of a chunk, in the work of a warpgroup on single elements

/// Sums over the parts of a chunk, by part and pair of channels.
using PartSums = float2[parts][32];

/// Blocks are (chunk, chain).
struct ChunkPlace {
    int64_t n, start;
    int head, first, tokens;
    __device__ explicit ChunkPlace(const ForwardCall& call)
        : n(int64_t(blockIdx.y) * call.chunks + blockIdx.x),
          start(int64_t(blockIdx.y) / call.heads * call.time),
          head(static_cast<int>(blockIdx.y) % call.heads),
          first(static_cast<int>(blockIdx.x) * chunk_tokens),
          tokens(min(chunk_tokens, call.time - first)) {}
    /// Begins to copy the chunk's rows of one input, all channels of the head, to `tiles`.
    template <int dim>
    __device__ void load(char* tiles, const DeviceRows& rows, int time) const {
        load_tiles<dim, 2 * dim>(shared_address(tiles), rows, start, head * dim, first, time, threadIdx.x);
    }
};

/// A thread's cumulated log decays of its two channels. For the whole block.
struct ChunkDecays {
    float2 G[Column<parts>::rows];  ///< from the chunk's start
    float2 middle, last;
    bool is_steep;

    __device__ ChunkDecays(char* gate_tile, const Column<parts>& at, int tokens, float factor, PartSums& sums) {
        sums[at.part][at.pair] = cumulate<parts>(
            G, [&](int i) { return at.in(gate_tile, i); }, at, tokens, factor);
        __syncthreads();
        const auto of_part = [&](int p) { return sums[p][at.pair]; };
        const float2 before = sum_parts<parts>(of_part, 0, at.part);
        middle = sum_parts<parts>(of_part, 0, parts / 2);
        last = sum_parts<parts>(of_part, 0, parts);
#pragma unroll
        for (int i = 0; i < Column<parts>::rows; ++i) G[i].x += before.x, G[i].y += before.y;
        // G falls: its first and last tokens are the farthest from the middle.
        const float farthest = fmaxf(fmaxf(-middle.x, -middle.y), fmaxf(middle.x - last.x, middle.y - last.y));
        is_steep = __syncthreads_or(farthest > steep) != 0;
    }
};

/// Writes G to `out`, in the order of float_index.
__device__ inline void write_decays(float* out, const ChunkDecays& decays, const Column<parts>& at) {
#pragma unroll
    for (int i = 0; i < Column<parts>::rows; ++i)
        *reinterpret_cast<float2*>(out + float_index(at.row(i), 2 * at.pair)) = decays.G[i];
}

/// Element (row, channel) of a matrix of tiles of bf16, and of the floats behind write_decays.
__device__ inline float bf16_at(const char* tiles, int row, int channel) {
    const char* at = tiles + channel / 64 * tile_bytes + tile_offset(row, channel % 64 / 8) + channel % 8 * 2;
    return __bfloat162float(*reinterpret_cast<const __nv_bfloat16*>(at));
}
__device__ inline float float_at(const float* tiles, int row, int channel) {
    return tiles[channel / 64 * 4096 + float_index(row, channel % 64)];
}

/// Qm and Km in place of two channels of Q and K, where m is G - G_mid.
__device__ inline void divide_at_middle(uint32_t& q, uint32_t& k, float2 m) {
    q = pack(low_half(q) * exp2_fast(m.x), high_half(q) * exp2_fast(m.y));
    k = pack(low_half(k) * exp2_fast(-m.x), high_half(k) * exp2_fast(-m.y));
}

/// x = X Y^T over all channels.
template <int dim>
__device__ void pair_products(float (&x)[32], const char (&X)[dim / 64][tile_bytes],
                              const char (&Y)[dim / 64][tile_bytes]) {
    hold(x);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(x, shared_address(X[i / 4]), shared_address(Y[i / 4]), i % 4, i > 0);
    products_commit();
    products_wait<0>();
    hold(x);
}

/// x_ij = sum_c Q_ic K_jc exp(G_ic - G_jc) by its definition, for i >= j, else 0; `transposed` puts it at
/// (j, i).
template <int dim, bool transposed>
__device__ void steep_pairs(float (&x)[32], const char* q, const char* k, const float* G, const Place& at) {
#pragma unroll
    for (int e = 0; e < 32; ++e) {
        const int row = at.row(e / 2 % 2), column = at.column(e / 4) + e % 2;
        const int i = transposed ? column : row, j = transposed ? row : column;
        float sum = 0;
        for (int c = 0; i >= j && c < dim; ++c)
            sum += bf16_at(q, i, c) * bf16_at(k, j, c) * exp2_fast(float_at(G, i, c) - float_at(G, j, c));
        x[e] = sum;
    }
}

/// Zero where `keep(row, column)` does not hold, times factor.
template <class Keep>
__device__ void mask(float (&x)[32], float factor, const Place& at, Keep keep) {
#pragma unroll
    for (int i = 0; i < 32; ++i) x[i] = keep(at.row(i / 2 % 2), at.column(i / 4) + i % 2) ? factor * x[i] : 0.0F;
}

/// The left operands of the next products from a fragment.
__device__ inline void make_left(Left (&left)[4], const float (&x)[32]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) left[i] = left_operand(x, i);
}

}  // namespace amalgam::kernels::linear_attention
