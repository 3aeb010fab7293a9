// SPDX-License-Identifier: Apache-2.0
// What both chains take of a chunk: Q and K scaled by decays and norms, and the sums over pairs of tokens
// (cuda_decays.cuh), of which those of K make a triangular matrix to be inverted. A warpgroup has 64 key channels, its
// warps 16 tokens each. Pairs within the 16 tokens of a warp are summed from registers; those of blocks of 16 (levels
// 16 and 32) by way of shared memory.
#include "kernels/gated_delta_rule/cuda_inverse.cuh"
#include "kernels/kimi_delta_attention/cuda_decays.cuh"

namespace amalgam::kernels::kimi_delta {
namespace {

/// Scaled copies of the chunk's tokens.
template <int dim>
struct LevelTiles {
    Tiles<dim> k16, k32;  ///< K at levels 16 and 32, all tokens
    Tiles<dim> q;         ///< Q of blocks 1 and 3 at level 16, then of blocks 2 and 3 at level 32
};

template <int dim>
struct PrepareShared {
    union {
        struct {
            Tiles<dim> q, k, a;  ///< then scale eG Q, eG K, er K
        } operands;
        struct {
            char Ag[tile_bytes], Pg[tile_bytes];
        } pairs;  ///< once those are on their way
    };
    union {
        LevelTiles<dim> levels;
        InverseShared inverse;  ///< of what has come from the products of those
    };
    alignas(16) float parts[dim / 64][4][32][8];  ///< what a warpgroup gives of the other's pairs on the diagonal
    alignas(16) BlockDecays<dim> blocks;
    alignas(16) ChunkNumbers numbers;
    float squares[dim / 64][2][64];
};

/// Blocks that a multiprocessor holds.
template <int dim>
constexpr int blocks_at_once = dim == 64 ? 4 : 2;

/// Pairs among the 16 tokens of a warp at level `size`, summed over 16 channels: added to the 16 x 16 results qk and
/// kk.
template <int size>
__device__ void add_level(float (&qk)[8], float (&kk)[8], const float (&q)[8], const float (&k)[8], PieceDecays& decays,
                          int lane) {
    float factor[8];
#pragma unroll
    for (int e = 0; e < 8; ++e) factor[e] = decays.factor<size>(e, lane);
    const Left left_q = scaled(q, factor), left_k = scaled(k, factor);
    float x[8] = {}, y[8] = {};
    multiply_transposed(x, left_q, left_k);
    multiply_transposed(y, left_k, left_k);
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        if constexpr (size == 8) {
            qk[2 + c] += x[2 + c], kk[2 + c] += y[2 + c];
        } else {
            const bool pair = is_pair<size>(lane / 4, lane % 4 * 2 + c);
            qk[c] += pair ? x[c] : 0.0F, qk[6 + c] += pair ? x[6 + c] : 0.0F;
            kk[c] += pair ? y[c] : 0.0F, kk[6 + c] += pair ? y[6 + c] : 0.0F;
        }
    }
    decays.join<size>(lane);
}

/// All pairs among the 16 tokens of a warp, and of queries with their own keys, summed over 16 channels.
__device__ void add_steep_pairs(float (&qk)[8], float (&kk)[8], const float (&q)[8], const float (&k)[8],
                                const float (&decay)[8], int lane) {
    PieceDecays decays(decay);
    add_level<1>(qk, kk, q, k, decays, lane);
    add_level<2>(qk, kk, q, k, decays, lane);
    add_level<4>(qk, kk, q, k, decays, lane);
    add_level<8>(qk, kk, q, k, decays, lane);
    float own[2] = {};
#pragma unroll
    for (int e = 0; e < 8; ++e) own[e / 2 % 2] += q[e] * k[e];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        own[r] = sum_columns(own[r]);
#pragma unroll
        for (int c = 0; c < 2; ++c)
            if (lane % 4 * 2 + c == lane / 4) qk[6 * r + c] += own[r];
    }
}

/// By values: a choice between two objects would put them in memory.
__device__ Left choose(bool first, const Left& x, const Left& y) {
    return {{first ? x.x[0] : y.x[0], first ? x.x[1] : y.x[1], first ? x.x[2] : y.x[2], first ? x.x[3] : y.x[3]}};
}

/// As halve, with products.
template <int half, int size>
__device__ void halve_product(float (&x)[size], int lane, int bit) {
    const bool upper = (lane & bit) != 0;
#pragma unroll
    for (int i = 0; i < half; ++i) {
        const float given = upper ? x[i] : x[i + half], kept = upper ? x[i + half] : x[i];
        x[i] = kept * __shfl_xor_sync(~0U, given, bit);
    }
}

/// Zero above the diagonal of a 16 x 16 result, and on it where `strict`.
template <bool strict>
__device__ void keep_lower(float (&d)[8], int lane) {
#pragma unroll
    for (int c = 0; c < 2; ++c) {
        const int column = lane % 4 * 2 + c;
        const bool keep = strict ? column < lane / 4 : column <= lane / 4;
        d[c] = keep ? d[c] : 0.0F, d[6 + c] = keep ? d[6 + c] : 0.0F;
        d[4 + c] = 0.0F;
    }
}

/// A 16 x 16 result of all channels: rows `row` .. of X times the transpose of rows `column` .. of Y.
template <int dim>
__device__ void block_product(float (&d)[8], const Tiles<dim>& X, int row, const Tiles<dim>& Y, int column, int lane) {
#pragma unroll
    for (int i = 0; i < 8; ++i) d[i] = 0.0F;
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        multiply_transposed(d, load_piece_rows(X[i / 4], row, i % 4, lane),
                            load_piece_rows(Y[i / 4], column, i % 4, lane));
}

/// The 16 x 16 blocks below the diagonal: rows 16 `row` .., columns 16 `column` .. of the pairs.
struct Block {
    int row, column, level;
};
__device__ inline Block block_below(int i) {
    return i < 2 ? Block{2 * i + 1, 2 * i, 16} : Block{i / 2 + 1, i % 2, 32};
}

/// Stores a 16 x 16 result to rows 16 `row` .., columns 16 `column` .. of a tile.
__device__ void store_result(char* tile, int row, int column, const float (&d)[8], float factor, int lane) {
    float x[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) x[i] = factor * d[i];
    store_piece_rows(tile, 16 * row, column, packed(x), lane);
}

template <int dim, bool bounded>
__global__ void __launch_bounds__(2 * dim, blocks_at_once<dim>)
    prepare_kernel(const __grid_constant__ ForwardCall call) {
    constexpr int tiles = dim / 64, threads = 2 * dim, warps = threads / 32;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<PrepareShared<dim>*>(memory);
    const int group = threadIdx.x / 128, warp = warp_of_group(), lane = threadIdx.x % 32;
    const auto [n, start, time, first, head] = chunk_of_block(call);
    if (first >= time) return;
    const int tokens = min(chunk_tokens, time - first), top = 16 * warp + lane / 4;

    const auto load = [&](Tiles<dim>& target, DeviceRows rows) {
        load_tiles<dim, threads>(shared_address(target), rows, start, head * dim, first, time, threadIdx.x);
    };
    load(shared.operands.a, call.a);
    load(shared.operands.k, call.k);
    load(shared.operands.q, call.q);
    copies_commit();
    const Gate<bounded> gate(call, head);
    const float2 absent = absent_rows(top, tokens);
    const float* dt_bias = call.dt_bias + head * dim;
    if (threadIdx.x < 64) {
        float beta = 0.0F;
        if (first + int(threadIdx.x) < time) {
            const int64_t token = start + first + threadIdx.x;
            beta = 1.0F / (1.0F + expf(-__bfloat162float(call.b.data[token * call.b.stride + head])));
        }
        shared.numbers.beta[threadIdx.x] = beta;
    }
    copies_wait<0>();
    __syncthreads();

    // Decays of single tokens and of blocks, and norms. The former wait where this thread's warp will write the piece's
    // scaled tokens. Loops over pieces stay loops: unrolled, they need more registers and instruction cache than there
    // are.
    auto& operands = shared.operands;
    char *const q_tile = operands.q[group], *const k_tile = operands.k[group], *const a_tile = operands.a[group];
    float squares[2][2] = {};
    const auto decay_place = [&](Tiles<dim>& tile, int p) -> float4& {
        return *reinterpret_cast<float4*>(tile[group] + tile_offset(16 * warp + lane / 2, 2 * p + lane % 2));
    };
#pragma unroll 1
    for (int p = 0; p < 4; ++p) {
        const int channel = 64 * group + 16 * p;
        float decay[8];
        piece_decays(decay, load_piece_rows(a_tile, 16 * warp, p, lane), gate, dt_bias, channel, absent, lane);
        decay_place(shared.levels.k16, p) = make_float4(decay[0], decay[1], decay[2], decay[3]);
        decay_place(shared.levels.k32, p) = make_float4(decay[4], decay[5], decay[6], decay[7]);
        const Left raw[2] = {load_piece_rows(q_tile, 16 * warp, p, lane), load_piece_rows(k_tile, 16 * warp, p, lane)};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float low = low_half(raw[i].x[j]), high = high_half(raw[i].x[j]);
                squares[i][j % 2] += low * low + high * high;
            }
        }
        float x[4] = {decay[0] * decay[2], decay[1] * decay[3], decay[4] * decay[6], decay[5] * decay[7]};
        halve_product<2>(x, lane, 4), halve_product<1>(x, lane, 8);
        x[0] *= __shfl_xor_sync(~0U, x[0], 16);
        if (lane < 16) shared.blocks[warp][channel + (lane & 4) * 2 + lane % 4 * 2 + (lane & 8) / 8] = x[0];
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float sum = sum_columns(squares[i][r]);
            if (lane % 4 == 0) shared.squares[group][i][top + 8 * r] = sum;
        }
    }
    __syncthreads();

    float q_factor[2], k_factor[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        q_factor[r] = k_factor[r] = 1.0F;
        if (call.l2_normalize) {
            float sums[2] = {normalize_epsilon, normalize_epsilon};
#pragma unroll
            for (int t = 0; t < tiles; ++t)
                sums[0] += shared.squares[t][0][top + 8 * r], sums[1] += shared.squares[t][1][top + 8 * r];
            q_factor[r] = rsqrtf(sums[0]), k_factor[r] = rsqrtf(sums[1]);
        }
        if (group == 0 && lane % 4 == 0) {
            shared.numbers.q_factor[top + 8 * r] = q_factor[r];
            shared.numbers.k_factor[top + 8 * r] = k_factor[r];
        }
        q_factor[r] *= call.scale;
    }

    // Everything that has one scaled copy a token, and the pairs on the diagonal.
    float qk[8] = {}, kk[8] = {};
#pragma unroll 1
    for (int p = 0; p < 4; ++p) {
        const int channel = 64 * group + 16 * p;
        const float4 first_half = decay_place(shared.levels.k16, p), second_half = decay_place(shared.levels.k32, p);
        const float decay[8] = {first_half.x,  first_half.y,  first_half.z,  first_half.w,
                                second_half.x, second_half.y, second_half.z, second_half.w};
        float q[8], k[8];
        unpack(q, load_piece_rows(q_tile, 16 * warp, p, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, p, lane), k_factor);
        PieceDecays decays(decay);
        decays.join<1>(lane), decays.join<2>(lane), decays.join<4>(lane);
        if (const MiddleFactors middle(decays); middle.steep) {
            add_steep_pairs(qk, kk, q, k, decay, lane);
        } else {
            const Left right = scaled(k, middle.column);
            multiply_transposed(qk, scaled(q, middle.row), right);
            multiply_transposed(kk, scaled(k, middle.row), right);
        }
        decays.join<8>(lane);

        // Scaled within the block of 16 tokens, then from there to the chunk's middle, start and end.
        float q_from[8], k_from[8], k_to[8];
#pragma unroll
        for (int e = 0; e < 8; ++e)
            q_from[e] = q[e] * decays.from[e], k_from[e] = k[e] * decays.from[e], k_to[e] = k[e] * decays.to[e];
        const Left q_start = packed(q_from), k_start = packed(k_from), k_end = packed(k_to);
        store_piece_rows(shared.levels.k16[group], 16 * warp, p, choose(warp % 2 == 1, k_start, k_end), lane);
        if (warp % 2 == 1) store_piece_rows(shared.levels.q[group], 8 * (warp - 1), p, q_start, lane);
        if (warp == 1 || warp == 2) {  // beside the middle
            store_piece_rows(shared.levels.k32[group], 16 * warp, p, choose(warp == 2, k_start, k_end), lane);
            if (warp == 2) store_piece_rows(shared.levels.q[group], 16 * warp, p, q_start, lane);
        } else {
            float between[4];
            decays_of_blocks<dim>(between, shared.blocks, warp == 0 ? 1 : 2, warp == 0 ? 2 : 3, channel, lane);
            store_piece_rows(shared.levels.k32[group], 16 * warp, p,
                             warp == 0 ? scaled(k_to, between) : scaled(k_from, between), lane);
            if (warp == 3) store_piece_rows(shared.levels.q[group], 16 * warp, p, scaled(q_from, between), lane);
        }
        float before[4], behind[4];
        decays_of_blocks<dim>(before, shared.blocks, 0, warp, channel, lane);
        decays_of_blocks<dim>(behind, shared.blocks, warp + 1, 4, channel, lane);
        store_piece_rows(q_tile, 16 * warp, p, scaled(q_from, before), lane);
        store_piece_rows(k_tile, 16 * warp, p, scaled(k_from, before), lane);
        store_piece_rows(a_tile, 16 * warp, p, scaled(k_to, behind), lane);
    }
    keep_lower<false>(qk, lane);
    keep_lower<true>(kk, lane);
    // Of the pairs on the diagonal the first warpgroup finishes those of queries, the last those of keys.
    if constexpr (tiles == 2) {
#pragma unroll
        for (int i = 0; i < 8; ++i) shared.parts[group][warp][lane][i] = group == 0 ? kk[i] : qk[i];
    }
    publish_shared();
    __syncthreads();
    if constexpr (tiles == 2) {
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float part = shared.parts[1 - group][warp][lane][i];
            qk[i] += part, kk[i] += part;  // each group uses its own only
        }
    }

    if (threadIdx.x == 0)
        bulk_store(call.saved.operands + n * int64_t(sizeof(operands)), shared_address(&operands), sizeof(operands));
    if (threadIdx.x < dim) {
        const int c = threadIdx.x;
        call.saved.decays[n * dim + c] =
            shared.blocks[0][c] * shared.blocks[1][c] * (shared.blocks[2][c] * shared.blocks[3][c]);
    }
    for (int i = threadIdx.x; i < int(sizeof(ChunkNumbers) / 4); i += threads)
        reinterpret_cast<float*>(&call.saved.numbers[n])[i] = reinterpret_cast<const float*>(&shared.numbers)[i];

    // The blocks below the diagonal: items 0 .. 5 of keys, 6 .. 11 of queries.
    constexpr int rounds = (12 + warps - 1) / warps;
    float below[rounds][8];
    const auto each_item = [&](auto body) {
#pragma unroll
        for (int round = 0; round < rounds; ++round) {
            const int item = round * warps + 4 * group + warp;
            if (item < 12) body(below[round], item >= 6, block_below(item % 6));
        }
    };
    each_item([&](float(&d)[8], bool of_queries, Block block) {
        const auto& k = block.level == 16 ? shared.levels.k16 : shared.levels.k32;
        if (of_queries)
            block_product<dim>(d, shared.levels.q, block.level == 16 ? 8 * (block.row - 1) : 16 * block.row, k,
                               16 * block.column, lane);
        else
            block_product<dim>(d, k, 16 * block.row, k, 16 * block.column, lane);
    });
    if (threadIdx.x == 0) bulk_stores_read();
    __syncthreads();  // the level tiles and the operands have been read
    auto& pairs = shared.pairs;
    InverseShared& inverse = shared.inverse;
    each_item([&](float(&d)[8], bool of_queries, Block block) {
        if (of_queries) {
            store_result(pairs.Pg, block.row, block.column, d, 1.0F, lane);
            return;
        }
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = 16 * block.row + 8 * (j % 2) + lane / 4,
                      column = 16 * block.column + j / 2 * 8 + lane % 4 * 2;
            const float beta = shared.numbers.beta[row];
            *reinterpret_cast<__half2*>(&inverse.A[row][column]) =
                __floats2half2_rn(beta * d[2 * j], beta * d[2 * j + 1]);
        }
    });
    if (group == 0) {
        const float zeros[8] = {};
        store_result(pairs.Pg, warp, warp, qk, 1.0F, lane);
        for (int column = warp + 1; column < 4; ++column) store_result(pairs.Pg, warp, column, zeros, 1.0F, lane);
    }
    if (group == tiles - 1) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int row = 8 * (j % 2) + lane / 4, column = j / 2 * 8 + lane % 4 * 2;
            const float beta = shared.numbers.beta[16 * warp + row];
            *reinterpret_cast<float2*>(&inverse.diagonal[warp][row][column]) =
                make_float2(beta * kk[2 * j], beta * kk[2 * j + 1]);
        }
    }
    __syncthreads();

    if (group == tiles - 1) {
        const auto synchronize = [] { named_barrier(1, 128); };
        invert(inverse, warp, lane, synchronize);
        synchronize();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            Left x;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const int row = 16 * warp + j % 2 * 8 + lane / 4, column = 16 * i + j / 2 * 8 + lane % 4 * 2;
                const float2 R = __half22float2(*reinterpret_cast<const __half2*>(&inverse.R[row][column]));
                x.x[j] = pack(R.x * shared.numbers.beta[column], R.y * shared.numbers.beta[column + 1]);
            }
            store_piece_rows(pairs.Ag, 16 * warp, i, x, lane);
        }
    }
    publish_shared();
    __syncthreads();
    if (threadIdx.x == 0) {
        bulk_store(call.saved.pairs + n * 2 * tile_bytes, shared_address(pairs.Ag), 2 * tile_bytes);
        bulk_stores_complete();
    }
}

}  // namespace

template <int dim>
void launch_prepare(const ForwardCall& call, cudaStream_t stream) {
    const auto launch = [&](auto bounded) {
        constexpr int bytes = sizeof(PrepareShared<dim>);
        static_assert(blocks_at_once<dim> * (bytes + 1024) <= 233472);
        [[maybe_unused]] static const bool allowed =
            cuda::allow_shared_memory(prepare_kernel<dim, bounded>, bytes, "Kimi Delta Attention on CUDA");
        prepare_kernel<dim, bounded><<<chunk_grid(call), 2 * dim, bytes, stream>>>(call);
    };
    call.lower_bound < 0.0F ? launch(std::true_type{}) : launch(std::false_type{});
}

template void launch_prepare<64>(const ForwardCall&, cudaStream_t);
template void launch_prepare<128>(const ForwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::kimi_delta
