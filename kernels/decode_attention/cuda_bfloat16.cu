// SPDX-License-Identifier: Apache-2.0
// The attention of bfloat16, with or without the append. Products on the tensor cores, with keys as rows and up to
// eight query heads as columns:
//     S^T = K Q^T [keys x heads],  O^T = V^T P^T [width x heads]
// so that the softmax of a head stays in the threads that hold its column. Tiles of keys and values are copied
// asynchronously some tiles ahead.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/decode_attention/cuda_append.cuh"
#include "kernels/decode_attention/cuda_call.cuh"
#include "kernels/decode_attention/cuda_merge.cuh"

namespace amalgam::kernels::cuda::decode {
namespace {

__device__ __forceinline__ std::uint32_t transpose(std::uint32_t x) {
    std::uint32_t y;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

/// Over the eight lanes that hold a column.
__device__ __forceinline__ float column_maximum(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0U, x, 4));
    x = fmaxf(x, __shfl_xor_sync(~0U, x, 8));
    return fmaxf(x, __shfl_xor_sync(~0U, x, 16));
}
__device__ __forceinline__ float column_sum(float x) {
    x += __shfl_xor_sync(~0U, x, 4);
    x += __shfl_xor_sync(~0U, x, 8);
    return x + __shfl_xor_sync(~0U, x, 16);
}

/// Starts the copy of a warp's tile: keys `first` and on of a slot's keys (or values), zeros from `end` on. A step
/// reads them once (a key head's blocks of further query heads at the same time), so they leave the L2 cache first.
template <int width>
__device__ __forceinline__ void copy_tile(std::uint32_t to, const Bfloat16* cache, int first, int end, int lane) {
    using Tile = Tiles<width>;
    constexpr int pieces = width / 8;
    const std::uint64_t policy = hopper::evict_first_policy();
#pragma unroll
    for (int i = 0; i < Tile::keys * pieces / 32; ++i) {
        const int piece = i * 32 + lane, key = piece / pieces, column = piece % pieces;
        const bool present = first + key < end;
        hopper::copy_async(to + key * Tile::stride + column * 16,
                           cache + std::int64_t(present ? first + key : first) * width + column * 8, present, policy);
    }
}

/// The row's new token as the append makes it, in shared memory.
template <int width>
struct alignas(16) NewToken {
    Bfloat16 q[heads][width], k[width], v[width];
};

/// Of the rotation, per lane of a head.
template <int width>
constexpr int pairs = (width / 2 + 31) / 32;

/// Makes it, by the warps of a block, and writes k and v into the cache where the block has the newest position. A warp
/// loads all its heads at once: one after the other, they would keep the whole block waiting.
template <int width>
__device__ __forceinline__ void append(const Call& c, const Stretch& at, const TableRow<pairs<width>>& table,
                                       NewToken<width>& token) {
    constexpr int rounds = (heads + 2 + warps - 1) / warps;
    const CacheAppend& a = c.append;
    const bool has_newest = at.end == at.newest + 1,
               writes = has_newest && at.first_head % (c.a.shape.query_heads / c.a.shape.key_value_heads) == 0;
    const int warp = int(threadIdx.x) / 32, count = at.heads_here + (has_newest ? 2 : 0);
    Head<Bfloat16, pairs<width>> channels[rounds];
#pragma unroll
    for (int i = 0; i < rounds; ++i) {
        const int head = warp + i * warps;
        if (head >= count) continue;
        const bool query = head < at.heads_here, value = head == at.heads_here + 1;
        channels[i].load(row_of<Bfloat16>(query   ? a.q
                                          : value ? a.v
                                                  : a.k,
                                          at.row) +
                             std::int64_t(query ? at.first_head + head : at.key_head) * width,
                         width);
    }
#pragma unroll
    for (int i = 0; i < rounds; ++i) {
        const int head = warp + i * warps;
        if (head >= count) continue;
        const bool query = head < at.heads_here, value = head == at.heads_here + 1;
        channels[i].append(a, query, value, table);
        channels[i].store(query ? token.q[head] : value ? token.v : token.k, width);
        if (query || !writes) continue;
        void* cache = value ? a.values : a.keys;
        channels[i].store(static_cast<Bfloat16*>(cache) + in_cache(c.a.shape, at.slot, at.key_head, at.newest), width);
    }
}

/// Thread (g = lane / 4, q = lane % 4) holds heads 2 q and 2 q + 1 of keys g and g + 8 of each 16, and of channels g
/// and g + 8 of each 16 of the output.
template <int width, bool appends>
__global__ void __launch_bounds__(threads) attention_kernel(const __grid_constant__ Call c) {
    using Tile = Tiles<width>;
    constexpr int channel_tiles = width / 16, key_tiles = Tile::keys / 16;
    static_assert(sizeof(Found<width>) <= Tile::warp_bytes);
    extern __shared__ __align__(128) char shared[];
    let_next_kernel_start();
    const Stretch at(c);
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
    const std::uint32_t buffer = hopper::shared_address(shared) + warp * Tile::warp_bytes;
    const std::int64_t base = in_cache(c.a.shape, at.slot, at.key_head, 0);
    const auto* keys = static_cast<const Bfloat16*>(c.a.keys) + base;
    const auto* values = static_cast<const Bfloat16*>(c.a.values) + base;

    const int first = at.begin + warp * Tile::keys;
    constexpr int step = warps * Tile::keys;
    const int tiles = at.end > first && !at.skipped ? (at.end - first + step - 1) / step : 0;
    const int cached_end = appends ? min(at.end, at.newest) : at.end;
    const auto fetch = [&](int tile) {
        if (tile < tiles) {
            const std::uint32_t to = buffer + tile % Tile::stages * 2 * Tile::tile;
            copy_tile<width>(to, keys, first + tile * step, cached_end, lane);
            copy_tile<width>(to + Tile::tile, values, first + tile * step, cached_end, lane);
        }
        hopper::copies_commit();
    };
    const auto fetch_first = [&] {
#pragma unroll
        for (int i = 0; i < Tile::stages - 1; ++i) fetch(i);
    };
    // All keys but the newest have been there since earlier steps.
    const bool early = appends || first + (Tile::stages - 2) * step + Tile::keys <= at.newest;
    if (early) fetch_first();
    [[maybe_unused]] TableRow<pairs<width>> table;
    if constexpr (appends)
        if (!at.skipped) table.load(c.append, at.newest);
    wait_for_earlier_kernels();
    if (at.skipped) return;
    if (!early) fetch_first();
    __shared__ NewToken<appends ? width : 1> token;
    if constexpr (appends) {
        append(c, at, table, token);
        __syncthreads();
    }

    // Q^T as right operands: head g, channels 2 q, 2 q + 1, and 8 further, of each 16.
    std::uint32_t query[channel_tiles][2];
    const Bfloat16* row =
        2 * q + (appends ? token.q[g] : row_of<Bfloat16>(c.a.q, at.row) + std::int64_t(at.first_head + g) * width);
#pragma unroll
    for (int i = 0; i < channel_tiles; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r)
            query[i][r] = g < at.heads_here ? *reinterpret_cast<const std::uint32_t*>(row + 16 * i + 8 * r) : 0U;

    float largest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0}, mixed[channel_tiles][4] = {};
    for (int tile = 0; tile < tiles; ++tile) {
        hopper::copies_wait<Tile::stages - 2>();
        __syncwarp();
        fetch(tile + Tile::stages - 1);  // into the tile before this one, which all lanes have read
        const std::uint32_t of_keys = buffer + tile % Tile::stages * 2 * Tile::tile, of_values = of_keys + Tile::tile;
        if (appends && at.newest < first + tile * step + Tile::keys && at.end > at.newest) {
            for (int piece = lane; piece < 2 * width / 8; piece += 32) {
                const bool value = piece >= width / 8;
                const int column = piece % (width / 8) * 8;
                char* to = shared + (of_keys - hopper::shared_address(shared)) + (value ? Tile::tile : 0) +
                           (at.newest - first - tile * step) * Tile::stride + 2 * column;
                *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>((value ? token.v : token.k) + column);
            }
            __syncwarp();
        }
        float logit[key_tiles][4] = {};
#pragma unroll
        for (int k = 0; k < key_tiles; ++k)
#pragma unroll
            for (int i = 0; i < channel_tiles; ++i) {
                hopper::Left left;
                hopper::load_matrices(left.x, of_keys + (16 * k + lane % 16) * Tile::stride + (2 * i + lane / 16) * 16);
                hopper::multiply(logit[k], left, query[i][0], query[i][1]);
            }
        const int left_over = at.end - (first + tile * step);
        float now[2] = {largest[0], largest[1]};
#pragma unroll
        for (int k = 0; k < key_tiles; ++k)
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                const bool present = 16 * k + g + e / 2 * 8 < left_over;
                logit[k][e] = present ? logit[k][e] * c.scale : -INFINITY;
                now[e % 2] = fmaxf(now[e % 2], logit[k][e]);
            }
        float factor[2];
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            now[h] = column_maximum(now[h]);  // a tile has at least one key
            factor[h] = exp2_approximate(largest[h] - now[h]);
            largest[h] = now[h];
            sum[h] *= factor[h];
        }
#pragma unroll
        for (int i = 0; i < channel_tiles; ++i)
#pragma unroll
            for (int e = 0; e < 4; ++e) mixed[i][e] *= factor[e % 2];
#pragma unroll
        for (int k = 0; k < key_tiles; ++k) {
#pragma unroll
            for (int e = 0; e < 4; ++e) {
                logit[k][e] = exp2_approximate(logit[k][e] - now[e % 2]);
                sum[e % 2] += logit[k][e];
            }
            const std::uint32_t upper = transpose(hopper::pack(logit[k][0], logit[k][1])),
                                lower = transpose(hopper::pack(logit[k][2], logit[k][3]));
#pragma unroll
            for (int i = 0; i < channel_tiles; ++i) {
                // V^T: rows are channels. Matrices: (channels, keys) low low, high low, low high, high high.
                hopper::Left left;
                hopper::load_matrices_transposed(
                    left.x,
                    of_values + (16 * k + lane / 16 * 8 + lane % 8) * Tile::stride + (2 * i + lane / 8 % 2) * 16);
                hopper::multiply(mixed[i], left, upper, lower);
            }
        }
    }
    hopper::copies_wait<0>();
    __syncthreads();
    auto* found = reinterpret_cast<Found<width>*>(shared);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        sum[h] = column_sum(sum[h]);
        if (g == 0) {
            found[warp].largest[2 * q + h] = largest[h];
            found[warp].sum[2 * q + h] = sum[h];
        }
    }
#pragma unroll
    for (int i = 0; i < channel_tiles; ++i)
#pragma unroll
        for (int e = 0; e < 4; ++e) found[warp].mixed[2 * q + e % 2][16 * i + g + e / 2 * 8] = mixed[i][e];
    __syncthreads();
    finish<Bfloat16, width>(c, at, found);
}

template <int width, bool appends>
void launch(const Call& call, dim3 grid, cudaStream_t stream) {
    constexpr int bytes = Tiles<width>::bytes;
    const auto kernel = attention_kernel<width, appends>;
    [[maybe_unused]] static const bool allowed = allow_shared_memory(kernel, bytes, operation);
    launch_early(kernel, grid, threads, bytes, 1, stream, operation, call);
}

}  // namespace

void attend_bfloat16(const Call& call, bool appends, dim3 grid, cudaStream_t stream) {
    with_width(call.a.shape.width, [&](auto constant) {
        constexpr int width = decltype(constant)::value;
        appends ? launch<width, true>(call, grid, stream) : launch<width, false>(call, grid, stream);
    });
}

}  // namespace amalgam::kernels::cuda::decode
