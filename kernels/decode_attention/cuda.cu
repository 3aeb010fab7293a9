// SPDX-License-Identifier: Apache-2.0
// A block takes one key head of one row, or a stretch of its keys where there are too few rows to fill the GPU; each of
// its warps takes tiles of keys by itself, copied asynchronously some tiles ahead. The warps of a block are put
// together in shared memory, the blocks of a head by the last of them to finish, in a fixed order.
//
// bfloat16: products on the tensor cores, with keys as rows and up to eight query heads as columns:
//     S^T = K Q^T [keys x heads],  O^T = V^T P^T [width x heads]
// so that the softmax of a head stays in the threads that hold its column. More than eight query heads of one key head
// are several blocks. float32 is for checks: a warp per key, lanes along the width.
#include <algorithm>
#include <utility>

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/decode_attention/decode_attention.h"
#include "kernels/require.h"

namespace amalgam::kernels::cuda {
namespace {

constexpr const char* operation = "decode_attention on CUDA";
constexpr int warps = 4, threads = 32 * warps;
constexpr int heads = 8;  // query heads of a block
constexpr float log2_e = 1.44269504F;

__device__ __forceinline__ std::int64_t in_cache(const CacheShape& s, int slot, int head, int position) {
    return ((std::int64_t(slot) * s.key_value_heads + head) * s.capacity + position) * s.width;
}

// --- append ----------------------------------------------------------------------------------------------------------

/// What the append makes of a head of a row: the channels lane + 32 i of both halves. `pairs`: of channels, per lane.
/// Values (norm and table null) stay as they are.
template <class T, int pairs>
__device__ __forceinline__ void turn_head(const CacheAppend& a, const T* x, const float* norm, bool rotate,
                                          int position, T (&low)[pairs], T (&high)[pairs]) {
    const int lane = int(threadIdx.x) % 32, width = int(a.shape.width), half = width / 2;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j < half) low[i] = x[j], high[i] = x[j + half];
    }
    if (norm != nullptr) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < pairs; ++i)
            if (lane + 32 * i < half)
                squares = fmaf(widen(low[i]), widen(low[i]), fmaf(widen(high[i]), widen(high[i]), squares));
        const float factor = rsqrtf(group_sum<32>(squares) / float(width) + a.epsilon);
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
            const int j = lane + 32 * i;
            if (j >= half) continue;
            narrow(widen(low[i]) * factor * norm[j], low[i]);
            narrow(widen(high[i]) * factor * norm[j + half], high[i]);
        }
    }
    if (!rotate) return;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j >= half) continue;
        const std::int64_t table = std::int64_t(position) * width + j;
        const float l = widen(low[i]), h = widen(high[i]);
        narrow(l * a.cos[table] - h * a.sin[table], low[i]);
        narrow(h * a.cos[table + half] + l * a.sin[table + half], high[i]);
    }
}

template <class T, int pairs>
__device__ __forceinline__ void store_head(T* y, int width, const T (&low)[pairs], const T (&high)[pairs]) {
    const int lane = int(threadIdx.x) % 32, half = width / 2;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j < half) y[j] = low[i], y[j + half] = high[i];
    }
}

/// A warp takes one head of one row: query heads, then key heads, then value heads.
template <class T, int pairs>
__global__ void __launch_bounds__(threads) append_kernel(const __grid_constant__ CacheAppend a) {
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const CacheShape& s = a.shape;
    const int row = int(blockIdx.y), width = int(s.width);
    int head = int(blockIdx.x) * warps + int(threadIdx.x) / 32;
    const int position = a.length[row], slot = a.slot[row];
    const int query_heads = int(s.query_heads), key_heads = int(s.key_value_heads);
    if (slot < 0 || position < 0 || position >= s.capacity || head >= query_heads + 2 * key_heads) return;
    const bool query = head < query_heads, value = head >= query_heads + key_heads;
    head -= query ? 0 : value ? query_heads + key_heads : query_heads;
    const T* x = row_of<T>(query ? a.q : value ? a.v : a.k, row) + std::int64_t(head) * width;
    T* y = query   ? row_of<T>(a.rotated, row) + std::int64_t(head) * width
           : value ? static_cast<T*>(a.values) + in_cache(s, slot, head, position)
                   : static_cast<T*>(a.keys) + in_cache(s, slot, head, position);
    T low[pairs], high[pairs];
    turn_head(a, x, query ? a.q_norm : value ? nullptr : a.k_norm, !value, position, low, high);
    store_head(y, width, low, high);
}

// --- attention -------------------------------------------------------------------------------------------------------

constexpr int most_splits = 64;

template <int width>
struct Tiles {
    static constexpr int keys = width <= 64 ? 32 : 16;    // of a tile
    static constexpr int stages = 3;                      // tiles under way, of a warp: two blocks fit
    static constexpr int stride = 2 * width + 16;         // bytes of a row: an odd number of pieces, no bank conflicts
    static constexpr int tile = keys * stride;            // bytes
    static constexpr int warp_bytes = stages * 2 * tile;  // keys and values
    static constexpr int bytes = warps * warp_bytes;
};

template <class Body>
auto with_width(std::int64_t width, Body&& body) {
    if (width == 32) return body(std::integral_constant<int, 32>{});
    if (width == 64) return body(std::integral_constant<int, 64>{});
    if (width == 96) return body(std::integral_constant<int, 96>{});
    return body(std::integral_constant<int, 128>{});
}

/// How the blocks of a call share the keys: a stretch is `share` keys of a row, the last of a row what is left. So all
/// blocks but those have the same work, whatever the lengths of the rows are.
struct Sharing {
    int splits;       // stretches of a row that is full
    int share;        // keys: a multiple of what the warps of a block take in a turn
    int head_blocks;  // of query heads, of one key head
};

/// The number of stretches, up to `most`, that promises the least time, which is counted in keys that a block reads.
/// `span`: keys of a full row.
Sharing sharing_of(const CacheShape& s, std::int64_t span, std::int64_t most) {
    static const int processors = multiprocessors();
    const auto [turn, bytes] = with_width(s.width, [](auto width) {
        using Tile = Tiles<decltype(width)::value>;
        return std::pair(warps * Tile::keys, Tile::bytes);
    });
    constexpr int of_processor = 228 << 10, reserved = 4 << 10;  // bytes of shared memory; of a block, beside its tiles
    const std::int64_t places = std::int64_t(processors) * (of_processor / (bytes + reserved));
    const int head_blocks = int((s.query_heads / s.key_value_heads + heads - 1) / heads);
    const std::int64_t blocks = s.batch * s.key_value_heads * head_blocks;
    const std::int64_t start = 48 * 128 / s.width;  // what a block takes to begin and to end
    Sharing best{1, 0, head_blocks};
    std::int64_t least = 0;
    for (std::int64_t wanted = 1; wanted <= most; ++wanted) {
        const std::int64_t share = (span + wanted * turn - 1) / (wanted * turn) * turn,
                           splits = (span + share - 1) / share;
        const std::int64_t waves = (blocks * splits + places - 1) / places;
        // Rows of unequal lengths leave places without work at the end, for half a share or so; parts are put together
        // one after the other.
        const std::int64_t cost = waves * (share + start) + share / 4 + (splits > 1 ? 2 * splits : 0);
        if (best.share == 0 || cost < least) {
            best.splits = int(splits), best.share = int(share);
            least = cost;
        }
    }
    return best;
}
Sharing sharing_of(const CacheShape& s) {
    return sharing_of(s, std::max<std::int64_t>(s.capacity, 1), most_splits);
}
/// No more stretches than without a window: the workspace is that of the shape.
Sharing sharing_of(const DecodeAttention& a) {
    const Sharing all = sharing_of(a.shape);
    return a.window > 0 && a.window < a.shape.capacity ? sharing_of(a.shape, a.window, all.splits) : all;
}

struct Call {
    DecodeAttention a;
    CacheAppend append;  // where the new tokens are appended in the same kernel
    Sharing sharing;
    float scale;        // times log2 e
    unsigned* arrived;  // [batch, key heads, head blocks], zero before and after a call
    float* mixed;       // [batch, query heads, splits, width]
    float2* weights;    // [batch, query heads, splits]: the largest logit (log2), the sum of weights relative to it
};

/// The keys of one block.
struct Stretch {
    int row, split, key_head, first_head, heads_here;
    int slot, begin, end;  // positions
    int newest;            // position of the row's new token
    int splits;            // stretches of this row
    bool skipped;

    __device__ explicit Stretch(const Call& c) {
        const CacheShape& s = c.a.shape;
        const int head_blocks = c.sharing.head_blocks, share = c.sharing.share;
        const int group = int(s.query_heads / s.key_value_heads), of_group = int(blockIdx.x) % head_blocks * heads;
        row = int(blockIdx.z);
        split = int(blockIdx.y);
        key_head = int(blockIdx.x) / head_blocks;
        first_head = key_head * group + of_group;
        heads_here = min(heads, group - of_group);
        slot = c.a.slot[row];
        const int length = newest = c.a.length[row];
        const int all_end = length + 1, all_begin = c.a.window > 0 ? max(0, all_end - int(c.a.window)) : 0;
        splits = (all_end - all_begin + share - 1) / share;
        skipped = slot < 0 || length < 0 || length >= s.capacity || split >= splits;
        begin = all_begin + split * share;
        end = min(begin + share, all_end);
    }
};

/// What a warp has found of the block's heads, in shared memory.
template <int width>
struct Found {
    float largest[heads], sum[heads];
    float mixed[heads][width + 1];
};

__device__ __forceinline__ void store(Bfloat16* to, const float4& x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(hopper::pack(x.x, x.y), hopper::pack(x.z, x.w));
}
__device__ __forceinline__ void store(float* to, const float4& x) {
    *reinterpret_cast<float4*>(to) = x;
}

__device__ __forceinline__ float warp_maximum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(~0U, x, distance));
    return x;
}

/// Puts the parts of a head together, which other blocks have written: a warp for a head, four channels a lane. All
/// loads of a turn are under way at once: one after the other, they would take longer than reading the keys. Not
/// inlined: the loop over the keys would get fewer registers.
template <class T, int width>
__device__ __noinline__ void merge(const Call& c, const Stretch& at, int h, int lane) {
    constexpr int quads = width / 4, at_once = 16;
    const std::int64_t head = at.row * c.a.shape.query_heads + at.first_head + h, part = head * c.sharing.splits;
    const float4* mixed = reinterpret_cast<const float4*>(c.mixed + part * width) + min(lane, quads - 1);
    float4 y[at_once];
    const auto load = [&](int first) {
#pragma unroll
        for (int i = 0; i < at_once; ++i)
            y[i] = first + i < at.splits ? __ldcg(mixed + (first + i) * quads) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    };
    load(0);
    float2 weight[most_splits / 32];
    float largest = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < most_splits / 32; ++i) {
        const int p = 32 * i + lane;
        weight[i] = p < at.splits ? __ldcg(c.weights + part + p) : make_float2(-INFINITY, 0.0F);
        largest = fmaxf(largest, weight[i].x);
    }
    largest = warp_maximum(largest);
#pragma unroll
    for (int i = 0; i < most_splits / 32; ++i) {
        weight[i].x = exp2_approximate(weight[i].x - largest);  // a row has at least one key
        sum = fmaf(weight[i].x, weight[i].y, sum);
    }
    sum = group_sum<32>(sum);
    float4 x = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    for (int first = 0; first < at.splits; first += at_once) {
        if (first > 0) load(first);
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const float factor = __shfl_sync(~0U, first < 32 ? weight[0].x : weight[1].x, (first + i) % 32);
            x.x = fmaf(factor, y[i].x, x.x), x.y = fmaf(factor, y[i].y, x.y);
            x.z = fmaf(factor, y[i].z, x.z), x.w = fmaf(factor, y[i].w, x.w);
        }
    }
    if (lane < quads)
        store(row_of<T>(c.a.o, at.row) + (at.first_head + h) * width + 4 * lane,
              make_float4(x.x / sum, x.y / sum, x.z / sum, x.w / sum));
}

/// Puts the warps of a block together, and the blocks of a head. All threads of the block call it after a barrier.
template <class T, int width>
__device__ void finish(const Call& c, const Stretch& at, const Found<width>* found) {
    const CacheShape& s = c.a.shape;
    __shared__ bool last;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    for (int h = warp; h < at.heads_here; h += warps) {
        float largest = -INFINITY, sum = 0, factor[warps];
#pragma unroll
        for (int w = 0; w < warps; ++w) largest = fmaxf(largest, found[w].largest[h]);
#pragma unroll
        for (int w = 0; w < warps; ++w) {
            factor[w] = exp2_approximate(found[w].largest[h] - largest);  // a block has at least one key
            sum = fmaf(factor[w], found[w].sum[h], sum);
        }
        const std::int64_t part = (at.row * s.query_heads + at.first_head + h) * c.sharing.splits + at.split;
        for (int j = lane; j < width; j += 32) {
            float x = 0;
#pragma unroll
            for (int w = 0; w < warps; ++w) x = fmaf(factor[w], found[w].mixed[h][j], x);
            if (at.splits == 1)
                narrow(x / sum, row_of<T>(c.a.o, at.row)[(at.first_head + h) * width + j]);
            else
                c.mixed[part * width + j] = x;
        }
        if (at.splits > 1 && lane == 0) c.weights[part] = make_float2(largest, sum);
    }
    if (at.splits == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        // Wraps to zero with the last block.
        unsigned* counter = c.arrived + std::int64_t(at.row) * gridDim.x + blockIdx.x;
        last = atomicInc(counter, unsigned(at.splits - 1)) == unsigned(at.splits - 1);
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int h = warp; h < at.heads_here; h += warps) merge<T, width>(c, at, h, lane);
}

// --- bfloat16 --------------------------------------------------------------------------------------------------------

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

/// Makes it, by the warps of a block, and writes k and v into the cache where the block has the newest position.
template <int width>
__device__ __forceinline__ void append(const Call& c, const Stretch& at, NewToken<width>& token) {
    constexpr int pairs = (width / 2 + 31) / 32;
    const CacheAppend& a = c.append;
    const bool has_newest = at.end == at.newest + 1,
               writes = has_newest && at.first_head % (c.a.shape.query_heads / c.a.shape.key_value_heads) == 0;
    for (int head = int(threadIdx.x) / 32; head < at.heads_here + (has_newest ? 2 : 0); head += warps) {
        const bool query = head < at.heads_here, value = head == at.heads_here + 1;
        const Bfloat16* x = row_of<Bfloat16>(query   ? a.q
                                             : value ? a.v
                                                     : a.k,
                                             at.row) +
                            std::int64_t(query ? at.first_head + head : at.key_head) * width;
        Bfloat16 low[pairs], high[pairs];
        turn_head(a, x, query ? a.q_norm : value ? nullptr : a.k_norm, !value, at.newest, low, high);
        store_head(query ? token.q[head] : value ? token.v : token.k, width, low, high);
        if (query || !writes) continue;
        void* cache = value ? a.values : a.keys;
        store_head(static_cast<Bfloat16*>(cache) + in_cache(c.a.shape, at.slot, at.key_head, at.newest), width, low,
                   high);
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
    wait_for_earlier_kernels();
    if (at.skipped) return;
    if (!early) fetch_first();
    __shared__ NewToken<appends ? width : 1> token;
    if constexpr (appends) {
        append(c, at, token);
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

// --- float32 ---------------------------------------------------------------------------------------------------------

template <int width>
__global__ void __launch_bounds__(threads) plain_attention_kernel(const __grid_constant__ Call c) {
    constexpr int n = width / 32;
    extern __shared__ __align__(128) char shared[];
    auto* found = reinterpret_cast<Found<width>*>(shared);
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const Stretch at(c);
    if (at.skipped) return;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    const std::int64_t base = in_cache(c.a.shape, at.slot, at.key_head, 0);
    const auto* keys = static_cast<const float*>(c.a.keys) + base;
    const auto* values = static_cast<const float*>(c.a.values) + base;
    float query[heads][n], mixed[heads][n] = {}, largest[heads], sum[heads] = {};
#pragma unroll
    for (int h = 0; h < heads; ++h) {
        largest[h] = -INFINITY;
        const float* row = row_of<float>(c.a.q, at.row) + std::int64_t(at.first_head + h) * width;
#pragma unroll
        for (int i = 0; i < n; ++i) query[h][i] = h < at.heads_here ? row[32 * i + lane] : 0.0F;
    }
    for (int key = at.begin + warp; key < at.end; key += warps) {
        float k[n], v[n];
#pragma unroll
        for (int i = 0; i < n; ++i) {
            k[i] = keys[std::int64_t(key) * width + 32 * i + lane];
            v[i] = values[std::int64_t(key) * width + 32 * i + lane];
        }
#pragma unroll
        for (int h = 0; h < heads; ++h) {
            float product = 0;
#pragma unroll
            for (int i = 0; i < n; ++i) product = fmaf(query[h][i], k[i], product);
            const float logit = group_sum<32>(product) * c.scale, now = fmaxf(largest[h], logit);
            const float factor = exp2f(largest[h] - now), weight = exp2f(logit - now);
            largest[h] = now;
            sum[h] = fmaf(sum[h], factor, weight);
#pragma unroll
            for (int i = 0; i < n; ++i) mixed[h][i] = fmaf(mixed[h][i], factor, weight * v[i]);
        }
    }
#pragma unroll
    for (int h = 0; h < heads; ++h) {
        if (lane == 0) {
            found[warp].largest[h] = largest[h];
            found[warp].sum[h] = sum[h];
        }
#pragma unroll
        for (int i = 0; i < n; ++i) found[warp].mixed[h][32 * i + lane] = mixed[h][i];
    }
    __syncthreads();
    finish<float, width>(c, at, found);
}

void require_support(const CacheShape& s) {
    require(decode_attention_supports(s), operation,
            "this shape has no kernel (widths 32, 64, 96 and 128 have); ask decode_attention_supports first");
}

/// Of a row's parts where several blocks share its keys.
std::int64_t partial_results(const CacheShape& s) {
    const int splits = sharing_of(s).splits;
    return splits == 1 ? 0 : s.batch * s.query_heads * splits;
}
std::int64_t weights_bytes(const CacheShape& s) {
    return (partial_results(s) * std::int64_t(sizeof(float2)) + 15) / 16 * 16;
}

}  // namespace

bool decode_attention_supports(const CacheShape& s) {
    return (s.width == 32 || s.width == 64 || s.width == 96 || s.width == 128) && s.batch < 65536 &&
           s.key_value_heads > 0 && s.query_heads % s.key_value_heads == 0;
}

void append_to_cache(const CacheAppend& a, Stream stream) {
    require_support(a.shape);
    if (a.shape.batch == 0) return;
    const std::int64_t all = a.shape.query_heads + 2 * a.shape.key_value_heads;
    const dim3 grid(unsigned((all + warps - 1) / warps), unsigned(a.shape.batch));
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        with_width(a.shape.width, [&](auto width) {
            launch_early(append_kernel<T, (decltype(width)::value / 2 + 31) / 32>, grid, threads, 0, 1, stream,
                         "append_to_cache", a);
        });
    });
}

std::int64_t decode_attention_workspace(const CacheShape& s) {
    return weights_bytes(s) + partial_results(s) * s.width * 4;
}

std::int64_t decode_attention_counters(const CacheShape& s) {
    return s.batch * s.key_value_heads * sharing_of(s).head_blocks * 4;
}

namespace {

void attend(const DecodeAttention& a, const CacheAppend* append, void* workspace, void* counters, Stream stream) {
    const CacheShape& s = a.shape;
    require_support(s);
    require(aligned(a.q, a.type) && aligned(a.o, a.type) && aligned(a.keys) && aligned(a.values), operation,
            "a row does not start at a multiple of 16 bytes (keys are copied 16 bytes at a time); align it");
    if (s.batch == 0) return;
    const Sharing sharing = sharing_of(a);
    Call call{a, append == nullptr ? CacheAppend{} : *append, sharing, 0, nullptr, nullptr, nullptr};
    call.scale = log2_e * (a.scale == 0 ? 1.0F / sqrtf(float(s.width)) : a.scale);
    call.arrived = static_cast<unsigned*>(counters);
    call.weights = static_cast<float2*>(workspace);
    call.mixed = reinterpret_cast<float*>(static_cast<char*>(workspace) + weights_bytes(s));
    const dim3 grid(unsigned(s.key_value_heads * sharing.head_blocks), unsigned(sharing.splits), unsigned(s.batch));
    with_width(s.width, [&](auto constant) {
        constexpr int width = decltype(constant)::value;
        if (a.type == ElementType::bfloat16) {
            constexpr int bytes = Tiles<width>::bytes;
            const auto launch = [&](auto appends) {
                const auto kernel = attention_kernel<width, decltype(appends)::value>;
                [[maybe_unused]] static const bool allowed = allow_shared_memory(kernel, bytes, operation);
                launch_early(kernel, grid, threads, bytes, 1, stream, operation, call);
            };
            append == nullptr ? launch(std::false_type{}) : launch(std::true_type{});
        } else {
            launch_early(plain_attention_kernel<width>, grid, threads, int(warps * sizeof(Found<width>)), 1, stream,
                         operation, call);
        }
    });
}

}  // namespace

void decode_attention(const DecodeAttention& a, void* workspace, void* counters, Stream stream) {
    attend(a, nullptr, workspace, counters, stream);
}

void append_and_attend(const CacheAppend& append, const DecodeAttention& a, void* workspace, void* counters,
                       Stream stream) {
    if (a.type == ElementType::bfloat16) return attend(a, &append, workspace, counters, stream);
    append_to_cache(append, stream);
    attend(a, nullptr, workspace, counters, stream);
}

}  // namespace amalgam::kernels::cuda
