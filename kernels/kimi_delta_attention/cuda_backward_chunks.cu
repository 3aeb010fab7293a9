// SPDX-License-Identifier: Apache-2.0
// The part of the backward pass that needs no chain: one block a chunk, one warpgroup for 32 key channels, its warps 16
// tokens each. As in the gated delta rule's, the substitution is differentiated and not the inverse:
//     dP = scale (dO V'^T) on and below the diagonal,  Z = -(dW V'^T) below it,  d(logit of b) = (dW . V') (1 - b) / b
//     dQ = scale eG (dO S^T) + rows of dP,  dK = er (V' dS^T) - eG (dW S^T) + rows of Z + columns of dP and Z
// for normalised q and k, where rows_ic(X) = sum_j X_ij K_jc decay_c(j .. i), columns_jc(X) = sum_i X_ij Q_ic decay_c(j
// .. i) (K for Z): pairs of one warp by levels (cuda_decays.cuh), others by blocks of 16 tokens. There the decays of
// the blocks in between multiply what has been summed so far.
//
// A decay's gradient is the sum over all uses that it lies on the way of, by channel: reads at or after its token (Q
// dQ, K dK of reads and rows, minus K dK of columns, pairs off the diagonal only), writes before it (K dK of writes),
// and eC dS . S.
#include "kernels/kimi_delta_attention/cuda_pair_gradients.cuh"
#include "kernels/kimi_delta_attention/cuda_token_sums.cuh"

namespace amalgam::kernels::kimi_delta {
namespace {

template <int dim>
struct ProductTiles {
    Tiles<dim> dO, values;  ///< values: V'
    char S[dim / 64][dim / 64][tile_bytes], dS[dim / 64][dim / 64][tile_bytes];
};

/// What pairs need once the products are done.
template <int dim>
struct PairTiles {
    BlockTiles<dim> scaled;
    float4 decays[2][4][4 * dim];  ///< by piece and thread: PieceDecays joined to 8 tokens, see keep_decays
};

/// For the gates' gradients, once the pairs are done.
template <int dim>
struct GateSums {
    float rest[4][dim];        ///< by warp: what its decays get from other warps' tokens and from the state
    float dt_columns[4][dim];  ///< sums over a warp's tokens of the gradients of a
};

template <int dim>
struct ChunkShared {
    static constexpr int groups = dim / 32;
    Tiles<dim> q, k, a;  ///< then their gradients
    Tiles<dim> dW;
    union {
        ProductTiles<dim> of;
        PairTiles<dim> pairs;
        GateSums<dim> gates;
    };
    char dP[tile_bytes], Z[tile_bytes];
    alignas(16) BlockDecays<dim> blocks;
    alignas(16) float halves[8][dim];  ///< the same for 8 tokens
    alignas(16) ChunkNumbers numbers;
    float state_columns[4][dim];  ///< sums over a warp's columns of V of dS . S
    float later[4][dim];          ///< sums over a warp's tokens: of what decays at and before them get
    float writes[4][dim];         ///< of what decays behind them get
    float beta_rows[groups][64];  ///< parts of dW . V'
    float along[groups][2][64];   ///< parts of q.dq and k.dk
    float A_log[4 * groups];      ///< a warp's part of the gradient of A_log
    uint64_t loaded[2];           ///< what needs no state; the states
};

/// Columns 32 half .. of one of dP and Z: factor (X V'^T) below the diagonal, and on it unless `strict`.
template <int dim, bool strict>
__device__ void pair_gradients(const Tiles<dim>& X, const Tiles<dim>& values, float factor, char* out, int half,
                               int warp, int lane) {
    float d[16];
    hold(d);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, shared_address(X[i / 4]), shared_address(values[i / 4]), half, i % 4,
                                               i > 0);
    products_commit();
    products_wait<0>();
    hold(d);
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        float x[8];
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const int row = 16 * warp + lane / 4 + e / 2 % 2 * 8,
                      column = 32 * half + 16 * p + e / 4 * 8 + lane % 4 * 2 + e % 2;
            x[e] = (strict ? column < row : column <= row) ? factor * d[8 * p + e] : 0.0F;
        }
        store_piece_rows(out, 16 * warp, 2 * half + p, packed(x), lane);
    }
}

/// Pairs among a warp's 16 tokens where decays are steep. Seldom called: inlined, its registers would be spilled by all
/// warps.
template <int dim, bool bounded>
__device__ __noinline__ PairSums steep_pairs(const ForwardCall& call, const ChunkShared<dim>& shared, int head,
                                             int tokens, int tile, int piece) {
    const int warp = warp_of_group(), lane = threadIdx.x % 32, top = 16 * warp + lane / 4;
    float decay[8], q[8], k[8];
    piece_decays(decay, load_piece_rows(shared.a[tile], 16 * warp, piece, lane), Gate<bounded>(call, head),
                 call.dt_bias + head * dim, 64 * tile + 16 * piece, absent_rows(top, tokens), lane);
    unpack(q, load_piece_rows(shared.q[tile], 16 * warp, piece, lane),
           {shared.numbers.q_factor[top], shared.numbers.q_factor[top + 8]});
    unpack(k, load_piece_rows(shared.k[tile], 16 * warp, piece, lane),
           {shared.numbers.k_factor[top], shared.numbers.k_factor[top + 8]});
    PieceDecays decays(decay);
    PairSums sums;
    add_levels(sums, q, k, decays, DiagonalBlock(shared.dP, warp, lane), DiagonalBlock(shared.Z, warp, lane), lane);
    return sums;
}

/// Keeps a piece's decays, joined to 8 tokens, from one loop to the next: those that MiddleFactors need first.
template <int threads>
__device__ inline void keep_decays(float4 (&kept)[4][threads], const PieceDecays& decays) {
    const float *from = decays.from, *to = decays.to;
    kept[0][threadIdx.x] = make_float4(to[0], to[1], to[4], to[5]);
    kept[1][threadIdx.x] = make_float4(from[2], from[3], from[6], from[7]);
    kept[2][threadIdx.x] = make_float4(from[0], from[1], from[4], from[5]);
    kept[3][threadIdx.x] = make_float4(to[2], to[3], to[6], to[7]);
}
/// Of tokens' two halves.
__device__ inline void interleave(float (&x)[8], const float4& first, const float4& second) {
    x[0] = first.x, x[1] = first.y, x[4] = first.z, x[5] = first.w;
    x[2] = second.x, x[3] = second.y, x[6] = second.z, x[7] = second.w;
}
/// What MiddleFactors are made of: decays from the middle of the warp's 16 tokens to those behind it, from those before
/// to the middle.
template <int threads>
__device__ inline void kept_from_middle(float (&x)[8], const float4 (&kept)[4][threads]) {
    interleave(x, kept[0][threadIdx.x], kept[1][threadIdx.x]);
}
/// PieceDecays::from and to, joined to 16 tokens.
template <int dim, int threads>
__device__ inline void kept_decays(float (&from)[8], float (&to)[8], const float4 (&kept)[4][threads],
                                   const float (&halves)[8][dim], int channel, int warp, int lane) {
    interleave(from, kept[2][threadIdx.x], kept[1][threadIdx.x]);
    interleave(to, kept[0][threadIdx.x], kept[3][threadIdx.x]);
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        const int c = channel + 8 * h + lane % 4 * 2;
        const float2 first = *reinterpret_cast<const float2*>(&halves[2 * warp][c]),
                     second = *reinterpret_cast<const float2*>(&halves[2 * warp + 1][c]);
        from[4 * h + 2] *= first.x, from[4 * h + 3] *= first.y;
        to[4 * h] *= second.x, to[4 * h + 1] *= second.y;
    }
}

/// Blocks that a multiprocessor holds.
template <int dim>
constexpr int blocks_at_once = dim == 64 ? 2 : 1;

/// Brings what a later block will load into the L2 cache, while this one computes: a multiprocessor holds too few
/// blocks for one to load while another computes.
template <int dim>
__device__ void prefetch_chunk(const BackwardCall& backward) {
    const ForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, state_bytes = tiles * tiles * tile_bytes, value_bytes = tiles * tile_bytes;
    const int64_t n = int64_t(blockIdx.y) * call.chunks + blockIdx.x + backward.multiprocessors * blocks_at_once<dim>;
    if (n >= int64_t(gridDim.y) * call.chunks) return;
    if (threadIdx.x == 0) {
        bulk_prefetch(call.saved.states + n * state_bytes, state_bytes);
        bulk_prefetch(backward.error_gradients + n * value_bytes, value_bytes);
        bulk_prefetch(backward.state_gradients + n * state_bytes, state_bytes);
        bulk_prefetch(call.saved.values + n * value_bytes, value_bytes);
    }
    if (call.packed > 0 || threadIdx.x >= 4 * 64) return;  // where that block's tokens lie takes a search
    const int chain = static_cast<int>(n / call.chunks), which = static_cast<int>(threadIdx.x) / 64;
    const int token = static_cast<int>(n % call.chunks) * chunk_tokens + static_cast<int>(threadIdx.x) % 64;
    const DeviceRows rows = which == 0 ? call.q : which == 1 ? call.k : which == 2 ? call.a : backward.output_gradient;
    if (token < call.time)
        bulk_prefetch(
            rows.data + (int64_t(chain / call.heads) * call.time + token) * rows.stride + chain % call.heads * dim,
            dim * 2);
}

template <int dim, bool bounded>
__global__ void __launch_bounds__(4 * dim, blocks_at_once<dim>)
    backward_chunks_kernel(const __grid_constant__ BackwardCall backward) {
    const ForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, groups = dim / 32, threads = 128 * groups;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ChunkShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = warp_of_group(), lane = threadIdx.x % 32;
    const int tile = group / 2, half = group % 2;  // of this group's key channels
    const auto [n, start, time, first, head] = chunk_of_block(call);
    if (first >= time) {
        if (threadIdx.x < dim) backward.dt_bias_sums[n * dim + threadIdx.x] = 0.0F;
        if (threadIdx.x == 0) backward.A_log_sums[n] = 0.0F;
        return;
    }
    const int tokens = min(chunk_tokens, time - first), top = 16 * warp + lane / 4;

    if (threadIdx.x == 0) {
        const uint32_t values_loaded = shared_address(&shared.loaded[0]);
        const uint32_t states_loaded = shared_address(&shared.loaded[1]);
        constexpr int state_bytes = tiles * tiles * tile_bytes, value_bytes = tiles * tile_bytes;
        barrier_init(values_loaded, 1);
        barrier_init(states_loaded, 1);
        publish_barriers();
        barrier_arrive_expect(values_loaded, 2 * value_bytes + int(sizeof(ChunkNumbers)));
        bulk_load(shared_address(&shared.numbers), call.saved.numbers + n, sizeof(ChunkNumbers), values_loaded);
        bulk_load(shared_address(shared.dW), backward.error_gradients + n * value_bytes, value_bytes, values_loaded);
        bulk_load(shared_address(shared.of.values), call.saved.values + n * value_bytes, value_bytes, values_loaded);
        barrier_arrive_expect(states_loaded, 2 * state_bytes);
        bulk_load(shared_address(shared.of.S), call.saved.states + n * state_bytes, state_bytes, states_loaded);
        bulk_load(shared_address(shared.of.dS), backward.state_gradients + n * state_bytes, state_bytes, states_loaded);
    }
    const auto load = [&](Tiles<dim>& target, DeviceRows rows) {
        load_tiles<dim, threads>(shared_address(target), rows, start, head * dim, first, time, threadIdx.x);
    };
    load(shared.of.dO, backward.output_gradient);
    copies_commit();
    load(shared.a, call.a);
    load(shared.k, call.k);
    load(shared.q, call.q);
    copies_commit();
    copies_wait<1>();  // the products need no more
    publish_shared();
    __syncthreads();
    barrier_wait(shared_address(&shared.loaded[0]), 0);
    if (tiles == 1 || group < 2)
        pair_gradients<dim, true>(shared.dW, shared.of.values, -1.0F, shared.Z, half, warp, lane);
    if (tiles == 1 || group >= 2)
        pair_gradients<dim, false>(shared.of.dO, shared.of.values, call.scale, shared.dP, half, warp, lane);
    barrier_wait(shared_address(&shared.loaded[1]), 0);
    prefetch_chunk<dim>(backward);

    // The products with states, for this group's key channels.
    float dQ[16], read[16], write[16];
    hold(dQ);
    hold(read);
    hold(write);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(dQ, shared_address(shared.of.dO[i / 4]),
                                            shared_address(shared.of.S[i / 4][tile]), half, i % 4, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(read, shared_address(shared.dW[i / 4]),
                                            shared_address(shared.of.S[i / 4][tile]), half, i % 4, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(write, shared_address(shared.of.values[i / 4]),
                                            shared_address(shared.of.dS[i / 4][tile]), half, i % 4, i > 0);
    products_commit();
    {
        float columns[8] = {}, beta[2] = {};
#pragma unroll
        for (int p = 0; p < 2; ++p) {
#pragma unroll
            for (int t = 0; t < tiles; ++t) {
                const Left x = load_piece_rows(shared.of.S[t][tile], 16 * warp, 2 * half + p, lane);
                const Left y = load_piece_rows(shared.of.dS[t][tile], 16 * warp, 2 * half + p, lane);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float* sum = &columns[4 * p + j / 2 * 2];
                    sum[0] += low_half(x.x[j]) * low_half(y.x[j]);
                    sum[1] += high_half(x.x[j]) * high_half(y.x[j]);
                }
            }
            const Left x = load_piece_rows(shared.dW[tile], 16 * warp, 2 * half + p, lane);
            const Left y = load_piece_rows(shared.of.values[tile], 16 * warp, 2 * half + p, lane);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                beta[j % 2] += low_half(x.x[j]) * low_half(y.x[j]) + high_half(x.x[j]) * high_half(y.x[j]);
        }
        write_column_sums(&shared.state_columns[warp][32 * group], columns, lane);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float sum = sum_columns(beta[r]);
            if (lane % 4 == 0) shared.beta_rows[group][top + 8 * r] = sum;
        }
    }
    products_wait<0>();
    hold(dQ);
    hold(read);
    hold(write);
    copies_wait<0>();
    __syncthreads();  // from here on the tokens scaled for blocks lie where the operands were

    const Gate<bounded> gate(call, head);
    const float2 absent = absent_rows(top, tokens);
    const float* dt_bias = call.dt_bias + head * dim;
    char *const q_tile = shared.q[tile], *const k_tile = shared.k[tile], *const a_tile = shared.a[tile];
    const float q_factor[2] = {shared.numbers.q_factor[top], shared.numbers.q_factor[top + 8]};
    const float k_factor[2] = {shared.numbers.k_factor[top], shared.numbers.k_factor[top + 8]};
#pragma unroll 1
    for (int p = 0; p < 2; ++p) {
        const int piece = 2 * half + p, channel = 64 * tile + 16 * piece;
        float decay[8], q[8], k[8];
        piece_decays(decay, load_piece_rows(a_tile, 16 * warp, piece, lane), gate, dt_bias, channel, absent, lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, piece, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, piece, lane), k_factor);
        PieceDecays decays(decay);
        decays.join<1>(lane), decays.join<2>(lane), decays.join<4>(lane);
        keep_decays(shared.pairs.decays[p], decays);
        if (lane < 4) {
#pragma unroll
            for (int j = 0; j < 4; ++j)  // of tokens 8 (j % 2) and on
                *reinterpret_cast<float2*>(&shared.halves[2 * warp + j % 2][channel + j / 2 * 8 + 2 * lane]) =
                    make_float2(decays.all[2 * j], decays.all[2 * j + 1]);
        }
        decays.join<8>(lane);
        write_block_decays<dim>(shared.blocks, decays, channel, warp, lane);
        store_piece_rows(shared.pairs.scaled.to_k[tile], 16 * warp, piece, scaled(k, decays.to), lane);
        store_piece_rows(shared.pairs.scaled.from_k[tile], 16 * warp, piece, scaled(k, decays.from), lane);
        store_piece_rows(shared.pairs.scaled.from_q[tile], 16 * warp, piece, scaled(q, decays.from), lane);
    }
    __syncthreads();

    float own[2];  // dP_ii
#pragma unroll
    for (int r = 0; r < 2; ++r) own[r] = bf16_at(shared.dP, top + 8 * r, top + 8 * r);
    float along_q[2] = {}, along_k[2] = {};
#pragma unroll 1
    for (int p = 0; p < 2; ++p) {  // dQ, read and write begin with this piece
        const int piece = 2 * half + p, channel = 64 * tile + 16 * piece;
        PairSums pairs;
        {
            float x[8];
            kept_from_middle(x, shared.pairs.decays[p]);
            if (const MiddleFactors middle(x); middle.steep) {
                // What a call may not keep in registers is put away here, lest all warps spill it.
                volatile float kept[3][16];
#pragma unroll
                for (int i = 0; i < 16; ++i) kept[0][i] = dQ[i], kept[1][i] = read[i], kept[2][i] = write[i];
                pairs = steep_pairs<dim, bounded>(call, shared, head, tokens, tile, piece);
#pragma unroll
                for (int i = 0; i < 16; ++i) dQ[i] = kept[0][i], read[i] = kept[1][i], write[i] = kept[2][i];
            } else {
                float q[8], k[8];
                unpack(q, load_piece_rows(q_tile, 16 * warp, piece, lane), q_factor);
                unpack(k, load_piece_rows(k_tile, 16 * warp, piece, lane), k_factor);
                add_diagonal(pairs, q, k, middle, DiagonalBlock(shared.dP, warp, lane),
                             DiagonalBlock(shared.Z, warp, lane));
            }
        }
        float from[8], to[8], q[8], k[8];
        kept_decays<dim>(from, to, shared.pairs.decays[p], shared.halves, channel, warp, lane);
        add_blocks<dim>(pairs, from, to, shared.pairs.scaled, shared.blocks, shared.dP, shared.Z, tile, piece, warp,
                        lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, piece, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, piece, lane), k_factor);

        float before[4], behind[4], later[8], writes[8], write_sums[4], d[8], dk[8];
        decays_of_blocks<dim>(before, shared.blocks, 0, warp, channel, lane);
        decays_of_blocks<dim>(behind, shared.blocks, warp + 1, 4, channel, lane);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float dq = call.scale * from[e] * of_channel(before, e) * dQ[e];
            later[e] = pairs.later[e] + q[e] * dq;
            d[e] = dq + pairs.q[e] + own[e / 2 % 2] * k[e];
            along_q[e / 2 % 2] += q[e] * d[e];
        }
        next_piece(dQ, d);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            d[e] = write[e] * (to[e] * of_channel(behind, e));
            writes[e] = k[e] * d[e];
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            dk[e] = read[e] * (-from[e] * of_channel(before, e));
            later[e] += k[e] * dk[e];
            dk[e] += d[e] + pairs.k[e] + own[e / 2 % 2] * q[e];
            along_k[e / 2 % 2] += k[e] * dk[e];
        }
        next_piece(read, dk);
        sum_from_token(later, lane);
        sum_before_token(writes, write_sums, lane);
#pragma unroll
        for (int e = 0; e < 8; ++e) d[e] = later[e] + writes[e];
        next_piece(write, d);
        if (lane < 4) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int c = channel + 8 * h + 2 * lane;
                *reinterpret_cast<float2*>(&shared.later[warp][c]) = make_float2(later[4 * h], later[4 * h + 1]);
                *reinterpret_cast<float2*>(&shared.writes[warp][c]) =
                    make_float2(write_sums[2 * h], write_sums[2 * h + 1]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum_q = sum_columns(along_q[r]), sum_k = sum_columns(along_k[r]);
        if (lane % 4 == 0) shared.along[group][0][top + 8 * r] = sum_q, shared.along[group][1][top + 8 * r] = sum_k;
    }
    __syncthreads();

    {
        const int w = threadIdx.x / dim, c = threadIdx.x % dim;
        float rest = 0.0F, chunk_decay = 1.0F;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            rest += shared.state_columns[i][c];
            chunk_decay *= shared.blocks[i][c];
        }
        rest *= chunk_decay;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            if (i > w) rest += shared.later[i][c];
            if (i < w) rest += shared.writes[i][c];
        }
        shared.gates.rest[w][c] = rest;
    }
    __syncthreads();

    // Normalisation, and the gates' gradients; the results take their inputs' places.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        along_q[r] = along_k[r] = 0.0F;
        if (call.l2_normalize) {
#pragma unroll
            for (int g = 0; g < groups; ++g)
                along_q[r] += shared.along[g][0][top + 8 * r], along_k[r] += shared.along[g][1][top + 8 * r];
        }
    }
    float A_log = 0.0F;
#pragma unroll 1
    for (int p = 0; p < 2; ++p) {
        const int piece = 2 * half + p;
        float q[8], k[8], da[8], dt_columns[4] = {};
        const Left gates = load_piece_rows(a_tile, 16 * warp, piece, lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, piece, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, piece, lane), k_factor);
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // this thread's channels
            const int c = 64 * tile + 16 * piece + i / 2 * 8 + lane % 4 * 2 + i % 2;
            const float rest = shared.gates.rest[warp][c];
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int e = i / 2 * 4 + 2 * r + i % 2;
                const uint32_t pair = gates.x[e / 2];
                const float2 by = gate.derivatives((e % 2 == 0 ? low_half(pair) : high_half(pair)) + dt_bias[c]);
                const float dg = write[e] + rest;
                da[e] = by.x * dg;
                if (top + 8 * r < tokens) dt_columns[i] += da[e], A_log += by.y * dg;
            }
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) q[e] = q_factor[e / 2 % 2] * (dQ[e] - q[e] * along_q[e / 2 % 2]);
#pragma unroll
        for (int e = 0; e < 8; ++e) k[e] = k_factor[e / 2 % 2] * (read[e] - k[e] * along_k[e / 2 % 2]);
        store_piece_rows(q_tile, 16 * warp, piece, packed(q), lane);
        store_piece_rows(k_tile, 16 * warp, piece, packed(k), lane);
        store_piece_rows(a_tile, 16 * warp, piece, packed(da), lane);
        next_piece(dQ), next_piece(read), next_piece(write);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const float sum = sum_rows(dt_columns[i]);
            if (lane < 4) shared.gates.dt_columns[warp][64 * tile + 16 * piece + i / 2 * 8 + 2 * lane + i % 2] = sum;
        }
    }
    A_log = sum_rows(sum_columns(A_log));
    if (lane == 0) shared.A_log[4 * group + warp] = A_log;
    __syncthreads();

    if (threadIdx.x < dim) {
        const int c = threadIdx.x;
        backward.dt_bias_sums[n * dim + c] = shared.gates.dt_columns[0][c] + shared.gates.dt_columns[1][c] +
                                             (shared.gates.dt_columns[2][c] + shared.gates.dt_columns[3][c]);
    } else if (threadIdx.x == dim) {
        float sum = 0.0F;
#pragma unroll
        for (int w = 0; w < 4 * groups; ++w) sum += shared.A_log[w];
        backward.A_log_sums[n] = sum;
    }
    if (threadIdx.x < tokens) {
        const int t = threadIdx.x;
        float sum = 0.0F;
#pragma unroll
        for (int g = 0; g < groups; ++g) sum += shared.beta_rows[g][t];
        const float beta = shared.numbers.beta[t];
        backward.b.data[(start + first + t) * backward.b.stride + head] =
            __float2bfloat16_rn(beta > 0.0F ? sum / beta * (1.0F - beta) : 0.0F);
    }
    // Tiles of q, k, v and a, two a group.
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
        const int which = (2 * group + i) / tiles, t = (2 * group + i) % tiles;
        const MutableDeviceRows out = which == 0   ? backward.q
                                      : which == 1 ? backward.k
                                      : which == 2 ? backward.v
                                                   : backward.a;
        const DeviceRows raw = which == 0 ? backward.raw_q : which == 1 ? backward.raw_k : backward.raw_v;
        const auto& from = which == 0 ? shared.q : which == 1 ? shared.k : which == 2 ? shared.dW : shared.a;
        with_alignment(backward.alignment, [&](auto alignment) {
            store_gradient<alignment>(out, raw, backward.silu && which < 3, from[t], start + first, tokens,
                                      head * dim + 64 * t, thread);
        });
    }
}

}  // namespace

template <int dim>
void launch_backward_chunks(const BackwardCall& call, cudaStream_t stream) {
    const ForwardCall& f = call.forward;
    const auto launch = [&](auto bounded) {
        constexpr int bytes = sizeof(ChunkShared<dim>);
        static_assert(blocks_at_once<dim> * (bytes + 1024) <= 233472);
        [[maybe_unused]] static const bool allowed =
            cuda::allow_shared_memory(backward_chunks_kernel<dim, bounded>, bytes, "Kimi Delta Attention on CUDA");
        backward_chunks_kernel<dim, bounded><<<chunk_grid(f), 4 * dim, bytes, stream>>>(call);
    };
    f.lower_bound < 0.0F ? launch(std::true_type{}) : launch(std::false_type{});
}

template void launch_backward_chunks<64>(const BackwardCall&, cudaStream_t);
template void launch_backward_chunks<128>(const BackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::kimi_delta
