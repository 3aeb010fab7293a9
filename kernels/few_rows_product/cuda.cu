// SPDX-License-Identifier: Apache-2.0
// Products of 16 x 8 x 16 on the tensor cores: 16 rows of x, 8 rows of weights, 16 channels. A tile is 16 outputs of
// all rows; its channels are cut into parts, whose sums are added in their order.
//
// A cluster of blocks takes a stretch of the tiles. Each of its blocks holds x of a group of the channels in shared
// memory, and each of its warps takes one tile after another, or shares it with others that take other parts of the
// group. What they find they send to the block that owns the tile, which adds it at the end. Where the tiles are too
// many for that (a vocabulary), a warp takes all channels of its tiles and has nobody to send to.
//
// Weights come by asynchronous copies, some stages ahead, from before the kernels in front have ended. Every thread
// copies just what it multiplies itself, so that nobody waits for anybody in the stream of weights: of each row of a
// tile, lane q of four takes the 8 channels from 8 q and from 32 + 8 q of every 64, four at a time as the channels 2 q,
// 2 q + 1, 2 q + 8, 2 q + 9 of a product. x lies in shared memory in the order in which the products take it. A weight
// is read once a call: it leaves the L2 cache first, so that it pushes out nothing that the next kernels read again.
//
// The factor of an RMS norm is common to a row of x: it is applied to the sums, and the norm's weights to x.
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/cluster.cuh"
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/require.h"

namespace amalgam::kernels::cuda {
namespace {

using hopper::shared_address;

constexpr const char* operation = "few_rows_product on CUDA";
constexpr int most_rows = 16;
constexpr int chunk = 64;         // channels of a stage
constexpr int tile_outputs = 16;  // rows of weights of a tile
constexpr int stage_bytes = 2 * chunk * tile_outputs;
constexpr int fragment_bytes = 512;  // of 16 x 8 sums, or of 16 rows of x and 16 channels
constexpr int warps = 12;            // of a block
constexpr int most_cluster = 8;
constexpr int most_bytes = 117 << 10;                                           // of shared memory of a block
constexpr int stages_in_cluster = 4, most_stages_alone = 6, fewest_stages = 3;  // weights under way of a warp

/// How a product is divided. It depends on the weight's shape only.
struct Plan {
    int chunks, tiles;
    int groups;    // of the channels: blocks of a cluster, 1 where a warp takes all channels
    int slices;    // warps of a block that share its group's channels of a tile
    int clusters;  // that share the tiles
    int columns;   // tiles of a cluster at a time
    int stages;    // weights under way of a warp, at most
    std::uint16_t part_begin[most_cluster * warps + 1];  // first chunk of each part, of groups * slices
    int parts() const { return groups * slices; }
};

/// Places in shared memory, bytes; the weights come first.
struct Layout {
    int ring, x, merge, norm, squares, barriers, bytes;  // ring: of one warp
};

struct Call {
    FewRowsProduct p;
    AroundProduct around;
    Plan plan;
    Layout at;
};

/// Two neighbouring elements.
__device__ __forceinline__ float2 load_pair(const void* row, int element) {
    return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(static_cast<const Bfloat16*>(row) + element));
}

/// The results of a tile in one thread: rows g and g + 8 (r), outputs 2 q and 2 q + 1 of both halves (h) of the tile.
template <bool gated>
struct Outputs {
    const Call& c;
    int tile;

    __device__ int row(int r) const { return int(threadIdx.x) % 32 / 4 + 8 * r; }
    /// Of the product, and of y.
    __device__ int of_product(int h) const {
        const int i = int(threadIdx.x) % 4 * 2;
        return gated ? h * int(c.p.out / 2) + 8 * tile + i : tile_outputs * tile + 8 * h + i;
    }
    __device__ int of_result(int h) const { return of_product(gated ? 0 : h); }
    __device__ bool has(int h) const { return of_result(h) < int(gated ? c.p.out / 2 : c.p.out); }

    /// What is added: all loads before anything is stored.
    struct Added {
        float2 bias[2], residual[2][2];  // [h], [r][h]
    };
    __device__ Added added() const {
        Added x{};
#pragma unroll
        for (int h = 0; h < 2; ++h) {
            if (!has(h)) continue;
            if (c.p.bias != nullptr) x.bias[h] = load_pair(c.p.bias, of_product(h));
            if (c.around.residual.data == nullptr || (gated && h > 0)) continue;
#pragma unroll
            for (int r = 0; r < 2; ++r)
                if (row(r) < int(c.p.rows))
                    x.residual[r][h] = load_pair(row_of<Bfloat16>(c.around.residual, row(r)), of_result(h));
        }
        return x;
    }

    /// sum[h]: over all channels. factors: of the rows.
    __device__ void write(const float (&sum)[2][4], const Added& x, const float* factors) const {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            if (row(r) >= int(c.p.rows)) continue;
            const float factor = c.around.norm != nullptr ? factors[row(r)] : 1.0F;
            float2 y[2];
#pragma unroll
            for (int h = 0; h < 2; ++h)
                y[h] = {fmaf(factor, sum[h][2 * r], x.bias[h].x), fmaf(factor, sum[h][2 * r + 1], x.bias[h].y)};
            if constexpr (gated)
                y[0] = {y[0].x * sigmoid<Bfloat16>(y[0].x) * y[1].x, y[0].y * sigmoid<Bfloat16>(y[0].y) * y[1].y};
#pragma unroll
            for (int h = 0; h < (gated ? 1 : 2); ++h)
                if (has(h))
                    *reinterpret_cast<std::uint32_t*>(row_of<Bfloat16>(c.p.y, row(r)) + of_result(h)) =
                        hopper::pack(y[h].x + x.residual[r][h].x, y[h].y + x.residual[r][h].y);
        }
    }
};

/// x of some chunks, by all warps of a block, into shared memory at `to`, [chunk][4][lane] of 16 bytes: of rows g and
/// g + 8, channels 2 q, 2 q + 1 and the two 8 further of a product. With a norm, times its weights; of every chunk the
/// squares of the rows before that are summed, `keep(chunk, row, sum)` by one lane of a row.
template <class Keep>
__device__ __forceinline__ void load_x(const Call& c, char* to, const float* norm, int first_chunk, int chunks,
                                       Keep keep) {
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
    constexpr int at_once = 2;
    for (int first = warp; first < chunks; first += at_once * warps) {
        uint4 x[at_once][2][2] = {};  // [row][piece]
#pragma unroll
        for (int i = 0; i < at_once; ++i)
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int of_block = first + i * warps, row = g + 8 * r;
                if (of_block >= chunks || row >= int(c.p.rows)) continue;
                const auto* from =
                    reinterpret_cast<const uint4*>(row_of<Bfloat16>(c.p.x, row) + (first_chunk + of_block) * chunk);
                x[i][r][0] = from[q];
                x[i][r][1] = from[q + 4];
            }
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const int of_block = first + i * warps;
            if (of_block >= chunks) continue;
            if (norm != nullptr) {
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    float squares = 0;
#pragma unroll
                    for (int piece = 0; piece < 2; ++piece) {
                        float values[8], weights[8];
                        load<8>(reinterpret_cast<const Bfloat16*>(&x[i][r][piece]), values);
                        load_floats(norm + of_block * chunk + 8 * q + 32 * piece, weights);
#pragma unroll
                        for (int k = 0; k < 8; ++k) {
                            squares = fmaf(values[k], values[k], squares);
                            values[k] *= weights[k];
                        }
                        store<8>(reinterpret_cast<Bfloat16*>(&x[i][r][piece]), values);
                    }
                    squares = group_sum<4>(squares);
                    if (q == 0) keep(first_chunk + of_block, g + 8 * r, squares);
                }
            }
            auto* fragments = reinterpret_cast<uint4*>(to + of_block * 4 * fragment_bytes) + lane;
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
                const uint4 &upper = x[i][0][piece], &lower = x[i][1][piece];
                fragments[piece * 64] = {upper.x, lower.x, upper.y, lower.y};
                fragments[piece * 64 + 32] = {upper.z, lower.z, upper.w, lower.w};
            }
        }
    }
}

/// gated: a tile has the gates and the ups of eight outputs.
template <int stages, bool gated, bool in_cluster>
__global__ void __launch_bounds__(32 * warps, 2) product_kernel(const __grid_constant__ Call c) {
    extern __shared__ __align__(128) char shared[];
    let_next_kernel_start();
    const Plan& plan = c.plan;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32, g = lane / 4, q = lane % 4;
    const int groups = in_cluster ? plan.groups : 1, slices = in_cluster ? plan.slices : 1, columns = plan.columns;
    const int rank = int(blockIdx.x) % groups, cluster = int(blockIdx.x) / groups;
    const int begin = cluster * plan.tiles / plan.clusters, end = (cluster + 1) * plan.tiles / plan.clusters;
    const int column = warp / slices, part = rank * slices + warp % slices;
    const bool has_tiles = column < columns;  // the others help with x and with the sums
    const int first = plan.part_begin[part], count = plan.part_begin[part + 1] - first;
    // Of x, this block has these chunks.
    const int block_first = plan.part_begin[rank * slices],
              block_chunks = plan.part_begin[(rank + 1) * slices] - block_first;

    char* ring = shared + warp * c.at.ring;
    const uint32_t merged = shared_address(shared + c.at.barriers), squared = merged + 8;
    if constexpr (in_cluster) {
        if (threadIdx.x == 0) {
            hopper::barrier_init(merged, 1);
            hopper::barrier_init(squared, 1);
            hopper::publish_barriers();
        }
        hopper::cluster_arrive();
    }

    // --- the stream of weights ---
    const std::uint64_t policy = hopper::evict_first_policy();
    const auto* weight = static_cast<const Bfloat16*>(c.p.weight.data);
    const int out = int(c.p.out), half = out / 2;
    const Bfloat16 *upper = nullptr, *lower = nullptr;
    int next_tile = has_tiles && count > 0 ? begin + column : end, next_chunk = 0;
    const auto find_rows = [&] {
        const int row = (gated ? 8 : tile_outputs) * next_tile + g;
        const int above = min(row, (gated ? half : out) - 1), below = gated ? half + above : min(row + 8, out - 1);
        const int channel = first * chunk + 8 * q;
        upper = weight + above * c.p.weight.stride + channel;
        lower = weight + below * c.p.weight.stride + channel;
    };
    const auto fetch = [&](int stage) {
        if (next_tile < end) {
            const uint32_t to = shared_address(ring) + stage * stage_bytes + lane * 16;
            hopper::copy_async(to, upper, true, policy);
            hopper::copy_async(to + 512, upper + 32, true, policy);
            hopper::copy_async(to + 1024, lower, true, policy);
            hopper::copy_async(to + 1536, lower + 32, true, policy);
            upper += chunk;
            lower += chunk;
            if (++next_chunk == count) {
                next_chunk = 0;
                next_tile += columns;
                find_rows();
            }
        }
        hopper::copies_commit();
    };
    find_rows();
#pragma unroll 1
    for (int i = 0; i < stages; ++i) fetch(i);

    // --- x ---
    float* norm = c.around.norm != nullptr ? reinterpret_cast<float*>(shared + c.at.norm) : nullptr;
    if (norm != nullptr) {
        for (int i = 4 * int(threadIdx.x); i < block_chunks * chunk; i += 4 * 32 * warps)
            *reinterpret_cast<float4*>(norm + i) =
                *reinterpret_cast<const float4*>(c.around.norm + block_first * chunk + i);
        __syncthreads();
    }
    if constexpr (in_cluster) hopper::cluster_wait();
    float *squares = reinterpret_cast<float*>(shared + c.at.squares), *factors = squares + plan.chunks * most_rows;
    wait_for_earlier_kernels();
    load_x(c, shared + c.at.x, norm, block_first, block_chunks, [&](int of_chunk, int row, float sum) {
        float* to = squares + of_chunk * most_rows + row;
        if constexpr (in_cluster) {
#pragma unroll 1
            for (int peer = 0; peer < groups; ++peer)
                hopper::store_remote(hopper::address_in(peer, shared_address(to)), sum,
                                     hopper::address_in(peer, squared));
        } else {
            *to = sum;
        }
    });
    // Of the tiles, every groups-th is this block's.
    const int owned = max(0, (end - begin - rank + groups - 1) / groups), parts = groups * slices;
    constexpr int part_bytes = 2 * fragment_bytes;
    if (in_cluster && threadIdx.x == 0) {
        hopper::barrier_arrive_expect(merged, owned * parts * part_bytes);
        if (norm != nullptr) hopper::barrier_arrive_expect(squared, plan.chunks * most_rows * 4);
    }
    __syncthreads();
    const auto find_factors = [&] {
        if (norm == nullptr) return;
        if (in_cluster) hopper::barrier_wait(squared, 0);
        const int row = int(threadIdx.x) / 16, l = int(threadIdx.x) % 16;
        if (row < most_rows) {
            float all = 0;
            for (int k = l; k < plan.chunks; k += 16) all += squares[k * most_rows + row];
            all = group_sum<16>(all);
            if (l == 0) factors[row] = rsqrtf(all / float(c.p.in) + c.around.epsilon);
        }
        __syncthreads();
    };
    if (!in_cluster) find_factors();

    // --- the tiles ---
    const auto* x_lane =
        reinterpret_cast<const uint4*>(shared + c.at.x + (first - block_first) * 4 * fragment_bytes) + lane;
    int stage = 0;
    for (int tile = has_tiles ? begin + column : end; tile < end; tile += columns) {
        float sums[2][4] = {};
#pragma unroll 1
        for (int k = 0; k < count; ++k) {
            hopper::copies_wait<stages - 1>();
            const auto* w = reinterpret_cast<const uint4*>(ring + stage * stage_bytes) + lane;
            const uint4* x = x_lane + k * 128;
            const uint4 weights[2][2] = {{w[0], w[32]}, {w[64], w[96]}};
#pragma unroll
            for (int piece = 0; piece < 2; ++piece) {
                const uint4 low = x[piece * 64], high = x[piece * 64 + 32];
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    hopper::multiply(sums[h], {low.x, low.y, low.z, low.w}, weights[h][piece].x, weights[h][piece].y);
#pragma unroll
                for (int h = 0; h < 2; ++h)
                    hopper::multiply(sums[h], {high.x, high.y, high.z, high.w}, weights[h][piece].z,
                                     weights[h][piece].w);
            }
            fetch(stage);
            stage = stage + 1 == stages ? 0 : stage + 1;
        }
        if constexpr (in_cluster) {
            const int place = (tile - begin) / groups * parts + part, owner = (tile - begin) % groups;
            const uint32_t to = hopper::address_in(
                               owner, shared_address(shared + c.at.merge + place * part_bytes + lane * 16)),
                           barrier = hopper::address_in(owner, merged);
#pragma unroll
            for (int h = 0; h < 2; ++h) hopper::store_remote(to + h * fragment_bytes, sums[h], barrier);
        } else {
            const Outputs<gated> outputs{c, tile};
            outputs.write(sums, outputs.added(), factors);
        }
    }
    if constexpr (in_cluster) {
        find_factors();
        for (int own = warp; own < owned; own += warps) {
            const Outputs<gated> outputs{c, begin + rank + own * groups};
            const auto added = outputs.added();
            hopper::barrier_wait(merged, 0);
            const char* found = shared + c.at.merge + own * parts * part_bytes + lane * 16;
            float totals[2][4] = {};
#pragma unroll 4
            for (int p = 0; p < parts; ++p)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float4 x = *reinterpret_cast<const float4*>(found + p * part_bytes + h * fragment_bytes);
                    totals[h][0] += x.x, totals[h][1] += x.y, totals[h][2] += x.z, totals[h][3] += x.w;
                }
            outputs.write(totals, added, factors);
        }
    }
}

Layout layout_of(const Plan& plan, bool norm) {
    const int block_chunks = (plan.chunks + plan.groups - 1) / plan.groups;
    const int owned = plan.groups == 1 ? 0 : (plan.tiles / plan.clusters + plan.groups) / plan.groups;
    Layout at{};
    const int of_warp = plan.groups == 1 ? plan.chunks : (block_chunks + plan.slices - 1) / plan.slices;
    const bool one_tile = plan.columns * plan.clusters >= plan.tiles;
    at.ring = (one_tile ? std::min(plan.stages, of_warp) : plan.stages) * stage_bytes;
    at.x = plan.columns * plan.slices * at.ring;
    at.merge = at.x + block_chunks * 4 * fragment_bytes;
    at.norm = at.merge + owned * plan.parts() * 2 * fragment_bytes;
    at.squares = at.norm + (norm ? block_chunks * chunk * 4 : 0);
    at.barriers = at.squares + (norm ? (plan.chunks + 1) * most_rows * 4 : 0);
    at.bytes = at.barriers + 16;
    return at;
}

/// groups: 1, or blocks of a cluster.
Plan divide(std::int64_t in, std::int64_t out, bool gated, bool norm, int groups) {
    static const int processors = multiprocessors();
    Plan plan{};
    plan.chunks = int(in / chunk);
    plan.tiles = int(gated ? (out / 2 + 7) / 8 : (out + tile_outputs - 1) / tile_outputs);
    plan.groups = groups;
    // Clusters of up to eight blocks fill eights of processors.
    plan.clusters = std::min(plan.tiles, groups == 1 ? processors : processors / most_cluster * most_cluster / groups);
    const int each = (plan.tiles + plan.clusters - 1) / plan.clusters, most_columns = groups == 1 ? warps / 2 : warps,
              rounds = (each + most_columns - 1) / most_columns;
    plan.columns = (each + rounds - 1) / rounds;
    plan.slices = groups == 1 || groups == most_cluster
                      ? 1
                      : std::max(1, std::min(warps / plan.columns, plan.chunks / groups / 2));
    for (int part = 0; part <= plan.parts(); ++part) {
        const auto group_begin = [&](int group) { return group * plan.chunks / plan.groups; };
        const int group = part / plan.slices, begin = group_begin(group);
        plan.part_begin[part] =
            std::uint16_t(begin + part % plan.slices * (group_begin(group + 1) - begin) / plan.slices);
    }
    plan.stages = groups > 1 ? stages_in_cluster : most_stages_alone;
    if (layout_of(plan, norm).bytes > most_bytes) plan.stages = fewest_stages;
    return plan;
}

Plan plan_of(std::int64_t in, std::int64_t out, bool gated, bool norm) {
    const int chunks = int(in / chunk);
    if (out >= 64 * multiprocessors() && chunks <= 32) return divide(in, out, gated, norm, 1);
    return divide(in, out, gated, norm, chunks <= 12 ? 2 : chunks <= 48 ? 4 : most_cluster);
}

Call call_of(const FewRowsProduct& p, const AroundProduct& around) {
    const Plan plan = plan_of(p.in, p.out, around.gated, around.norm != nullptr);
    return {p, around, plan, layout_of(plan, around.norm != nullptr)};
}

template <int stages, bool gated, bool in_cluster>
void launch(const Call& call, cudaStream_t stream) {
    const auto kernel = product_kernel<stages, gated, in_cluster>;
    [[maybe_unused]] static const bool allowed = allow_shared_memory(kernel, most_bytes, operation);
    const Plan& plan = call.plan;
    launch_early(kernel, dim3(unsigned(plan.groups * plan.clusters)), 32 * warps, call.at.bytes, plan.groups, stream,
                 operation, call);
}

template <bool gated>
void launch(const Call& call, cudaStream_t stream) {
    const bool few = call.plan.stages == fewest_stages;
    if (call.plan.groups > 1)
        few ? launch<fewest_stages, gated, true>(call, stream) : launch<stages_in_cluster, gated, true>(call, stream);
    else
        few ? launch<fewest_stages, gated, false>(call, stream) : launch<most_stages_alone, gated, false>(call, stream);
}

void launch(const Call& call, cudaStream_t stream) {
    call.around.gated ? launch<true>(call, stream) : launch<false>(call, stream);
}

/// Pairs of elements are accessed.
bool in_pairs(const ConstRows& rows) {
    return reinterpret_cast<std::uintptr_t>(rows.data) % 4 == 0 && rows.stride % 2 == 0;
}

}  // namespace

bool few_rows_product_supports(const FewRowsProduct& p, const AroundProduct& around) {
    const std::int64_t width = around.gated ? p.out / 2 : p.out;
    if (p.type != ElementType::bfloat16 || p.rows < 1 || p.rows > most_rows || p.in < chunk || p.in % chunk != 0 ||
        p.out < 2 || p.out % 2 != 0 || width % 2 != 0 || p.out > (std::int64_t(1) << 24) ||
        p.in > (std::int64_t(1) << 20))
        return false;
    if (!aligned(p.x, p.type) || !aligned(p.weight, p.type) || !aligned(around.norm) || !in_pairs(p.y) ||
        !in_pairs(around.residual) || !in_pairs({p.bias, 0}))
        return false;
    return call_of(p, around).at.bytes <= most_bytes;
}

void few_rows_product(const FewRowsProduct& p, const AroundProduct& around, Stream stream) {
    require(few_rows_product_supports(p, around), operation,
            "this call has no kernel (bfloat16, up to 16 rows, multiples of 64 channels have); ask "
            "few_rows_product_supports first");
    launch(call_of(p, around), stream);
}

}  // namespace amalgam::kernels::cuda
