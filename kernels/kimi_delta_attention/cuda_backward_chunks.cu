// SPDX-License-Identifier: Apache-2.0
// The part of the backward pass that needs no chain: one block a chunk, one warpgroup for 64 key channels, its warps 16
// tokens each. As in the gated delta rule's, the substitution is differentiated and not the inverse:
//     dP = scale (dO V'^T) on and below the diagonal,  Z = -(dW V'^T) below it,  d(logit of b) = (dW . V') (1 - b) / b
//     dQ = scale eG (dO S^T) + rows of dP,  dK = er (V' dS^T) - eG (dW S^T) + rows of Z + columns of dP and Z
// for normalised q and k, where rows_ic(X) = sum_j X_ij K_jc decay_c(j .. i), columns_jc(X) = sum_i X_ij Q_ic decay_c(j .. i)
// (K for Z): pairs of one warp by levels (cuda_decays.cuh), others by blocks of 16 tokens. There the decays of the blocks in
// between multiply what has been summed so far.
//
// A decay's gradient is the sum over all uses that it lies on the way of, by channel: reads at or after its token (Q dQ, K dK
// of reads and rows, minus K dK of columns, pairs off the diagonal only), writes before it (K dK of writes), and eC dS . S.
#include "kernels/kimi_delta_attention/cuda_decays.cuh"

namespace amalgam::kernels::kimi_delta {
namespace {

template <int dim>
using Tiles = char[dim / 64][tile_bytes];

/// Tokens scaled for pairs of different blocks: K by the decays to its block's end and from its start, Q from there.
template <int dim>
struct BlockTiles {
    Tiles<dim> to_k, from_k, from_q;
};

template <int dim>
struct ProductTiles {
    Tiles<dim> dO, values;  ///< values: V'
    char S[dim / 64][dim / 64][tile_bytes], dS[dim / 64][dim / 64][tile_bytes];
};

template <int dim>
struct ChunkShared {
    static constexpr int tiles = dim / 64;
    Tiles<dim> q, k, a;  ///< then their gradients
    Tiles<dim> dW;
    union {
        ProductTiles<dim> of;
        BlockTiles<dim> scaled;  ///< once the products are done
    };
    char dP[tile_bytes], Z[tile_bytes];
    alignas(16) BlockDecays<dim> blocks;
    alignas(16) ChunkNumbers numbers;
    float state_columns[tiles][4][64];  ///< sums over a warp's columns of V of dS . S
    float later[4][dim];                ///< sums over a warp's tokens: of what decays at and before them get
    float writes[4][dim];               ///< of what decays behind them get
    float dt_columns[tiles][4][64];     ///< of the gradients of a
    float beta_rows[tiles][64];         ///< parts of dW . V'
    float along[tiles][2][64];          ///< parts of q.dq and k.dk
    float A_log[4 * tiles];             ///< a warp's part of the gradient of A_log
    uint64_t loaded[2];                 ///< what needs no state; the states
};

/// One of dP and Z: factor (X V'^T) below the diagonal, and on it unless `strict`.
template <int dim, bool strict>
__device__ void pair_gradients(const Tiles<dim>& X, const Tiles<dim>& values, float factor, char* out, const Place& at) {
    float d[32];
    hold(d);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, shared_address(X[i / 4]), shared_address(values[i / 4]), i % 4, i > 0);
    products_commit();
    products_wait<0>();
    hold(d);
#pragma unroll
    for (int i = 0; i < 32; ++i) {
        const int row = at.row(i / 2 % 2), column = at.column(i / 4) + i % 2;
        d[i] = (strict ? column < row : column <= row) ? factor * d[i] : 0.0F;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) store_rows(shared_address(out), i, left_operand(d, i));
}

/// Blocks that a multiprocessor holds.
template <int dim>
constexpr int blocks_at_once = dim == 64 ? 2 : 1;

/// A warp's 16 x 16 block of dP or Z on the diagonal, and its transpose.
struct DiagonalBlock {
    Left rows, columns;
    __device__ DiagonalBlock(const char* tile, int warp, int lane)
        : rows(load_piece_rows(tile, 16 * warp, warp, lane)),
          columns(load_block_transposed(tile, 16 * warp, warp, lane)) {}
    /// The pairs of one level as left operands: with their rows as rows, or with their columns.
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

/// Gradients of a piece's 8 elements, of normalised q and k, and what the decays at and before its tokens get.
struct PieceGradients {
    float q[8], k[8], later[8];
};

/// Pairs of level `size` < 16.
template <int size>
__device__ void add_level(PieceGradients& out, const float (&q)[8], const float (&k)[8], const PieceDecays& decays,
                          const DiagonalBlock& dP, const DiagonalBlock& Z, int lane) {
    float factor[8], of_q[8] = {}, of_k[8] = {};
#pragma unroll
    for (int e = 0; e < 8; ++e) factor[e] = decays.factor<size>(e, lane);
    const Left right_k = transpose(scaled(k, factor)), right_q = transpose(scaled(q, factor));
    Left both = Z.level_rows<size>(lane);
    const Left columns = Z.level_columns<size>(lane);
#pragma unroll
    for (int j = 0; j < 4; ++j) both.x[j] |= columns.x[j];  // a token is in one half
    multiply_rows(of_q, dP.level_rows<size>(lane), right_k);
    multiply_rows(of_k, both, right_k);
    multiply_rows(of_k, dP.level_columns<size>(lane), right_q);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const float dq = factor[e] * of_q[e], dk = factor[e] * of_k[e];
        out.q[e] += dq, out.k[e] += dk;
        out.later[e] += q[e] * dq + (PieceDecays::upper<size>(e, lane) ? k[e] * dk : -k[e] * dk);
    }
}

/// Pairs of this warp's tokens with those of other blocks. `p` is the piece, decays joined to 16 tokens.
template <int dim>
__device__ void add_blocks(PieceGradients& out, const float (&q)[8], const float (&k)[8], const PieceDecays& decays,
                           const ChunkShared<dim>& shared, int group, int p, int warp, int lane) {
    const int channel = 64 * group + 16 * p;
    const auto pass = [&](float(&x)[8], int block) {
        float between[4];
        decays_of_blocks<dim>(between, shared.blocks, block, block + 1, channel, lane);
#pragma unroll
        for (int e = 0; e < 8; ++e) x[e] *= of_channel(between, e);
    };
    float of_q[8] = {}, of_k[8] = {}, of_columns[8] = {};
#pragma unroll
    for (int block = 0; block < 3; ++block) {  // earlier tokens, in order
        if (block >= warp) continue;
        if (block > 0) pass(of_q, block), pass(of_k, block);
        const Left right = load_piece_transposed(shared.scaled.to_k[group], 16 * block, p, lane);
        multiply_rows(of_q, load_piece_rows(shared.dP, 16 * warp, block, lane), right);
        multiply_rows(of_k, load_piece_rows(shared.Z, 16 * warp, block, lane), right);
    }
#pragma unroll
    for (int block = 3; block > 0; --block) {  // later ones, in reverse
        if (block <= warp) continue;
        if (block < 3) pass(of_columns, block);
        multiply_rows(of_columns, load_block_transposed(shared.dP, 16 * block, warp, lane),
                      load_piece_transposed(shared.scaled.from_q[group], 16 * block, p, lane));
        multiply_rows(of_columns, load_block_transposed(shared.Z, 16 * block, warp, lane),
                      load_piece_transposed(shared.scaled.from_k[group], 16 * block, p, lane));
    }
#pragma unroll
    for (int e = 0; e < 8; ++e) {
        const float dq = decays.from[e] * of_q[e], row = decays.from[e] * of_k[e], column = decays.to[e] * of_columns[e];
        out.q[e] += dq, out.k[e] += row + column;
        out.later[e] += q[e] * dq + k[e] * row - k[e] * column;
    }
}

/// Of x, sums over the warp's tokens from each one on. The sum of all is that of lanes 0 .. 3 in elements of the first row.
__device__ inline void sum_from_token(float (&x)[8], int lane) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float other = __shfl_down_sync(~0U, x[e], step);
            if (lane + step < 32) x[e] += other;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) x[4 * h + c] += __shfl_sync(~0U, x[4 * h + 2 + c], lane % 4);
    }
}
/// Of x, sums over the warp's tokens before each one; `all` is the sum of all of a channel.
__device__ inline void sum_before_token(float (&x)[8], float (&all)[4], int lane) {
#pragma unroll
    for (int step = 4; step < 32; step *= 2) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float other = __shfl_up_sync(~0U, x[e], step);
            if (lane >= step) x[e] += other;
        }
    }
#pragma unroll
    for (int h = 0; h < 2; ++h) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
            float &first = x[4 * h + c], &second = x[4 * h + 2 + c];
            const float first_sum = __shfl_sync(~0U, first, 28 + lane % 4), second_sum = __shfl_sync(~0U, second, 28 + lane % 4);
            const float a = __shfl_up_sync(~0U, first, 4), b = __shfl_up_sync(~0U, second, 4);
            first = lane < 4 ? 0.0F : a;
            second = first_sum + (lane < 4 ? 0.0F : b);
            all[2 * h + c] = first_sum + second_sum;
        }
    }
}

template <int dim>
__global__ void __launch_bounds__(2 * dim, blocks_at_once<dim>)
    backward_chunks_kernel(const __grid_constant__ BackwardCall backward) {
    const ForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, threads = 128 * tiles;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ChunkShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const auto [n, start, time, first, head] = chunk_of_block(call);
    if (first >= time) {
        if (threadIdx.x < dim) backward.dt_bias_sums[n * dim + threadIdx.x] = 0.0F;
        if (threadIdx.x == 0) backward.A_log_sums[n] = 0.0F;
        return;
    }
    const int tokens = min(chunk_tokens, time - first), top = 16 * warp + lane / 4;
    const Place at{top, lane};

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
    load(shared.a, call.a);
    load(shared.k, call.k);
    load(shared.q, call.q);
    copies_commit();
    copies_wait<0>();
    publish_shared();
    __syncthreads();
    barrier_wait(shared_address(&shared.loaded[0]), 0);
    if (group == 0) pair_gradients<dim, true>(shared.dW, shared.of.values, -1.0F, shared.Z, at);
    if (group == tiles - 1) pair_gradients<dim, false>(shared.of.dO, shared.of.values, call.scale, shared.dP, at);
    barrier_wait(shared_address(&shared.loaded[1]), 0);

    // The products with states, for this group's key channels.
    float dQ[32], read[32], write[32];
    hold(dQ);
    hold(read);
    hold(write);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(dQ, shared_address(shared.of.dO[i / 4]),
                                            shared_address(shared.of.S[i / 4][group]), i % 4, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(read, shared_address(shared.dW[i / 4]),
                                            shared_address(shared.of.S[i / 4][group]), i % 4, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_rows>(write, shared_address(shared.of.values[i / 4]),
                                            shared_address(shared.of.dS[i / 4][group]), i % 4, i > 0);
    products_commit();
    {
        float columns[16] = {};
#pragma unroll
        for (int t = 0; t < tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                const Left x = load_rows(shared_address(shared.of.S[t][group]), i);
                const Left y = load_rows(shared_address(shared.of.dS[t][group]), i);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    float* sum = &columns[4 * i + j / 2 * 2];
                    sum[0] += low_half(x.x[j]) * low_half(y.x[j]);
                    sum[1] += high_half(x.x[j]) * high_half(y.x[j]);
                }
            }
        }
        write_column_sums(shared.state_columns[group], columns, at, warp);
        float beta[2] = {};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Left x = load_rows(shared_address(shared.dW[group]), i);
            const Left y = load_rows(shared_address(shared.of.values[group]), i);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                beta[j % 2] += low_half(x.x[j]) * low_half(y.x[j]) + high_half(x.x[j]) * high_half(y.x[j]);
        }
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float sum = sum_columns(beta[r]);
            if (lane % 4 == 0) shared.beta_rows[group][at.row(r)] = sum;
        }
    }
    products_wait<0>();
    hold(dQ);
    hold(read);
    hold(write);
    __syncthreads();  // from here on the tokens scaled for blocks lie where the operands were

    const Gate gate = call.gate(head);
    const float* dt_bias = call.dt_bias + head * dim;
    char *const q_tile = shared.q[group], *const k_tile = shared.k[group], *const a_tile = shared.a[group];
    const float q_factor[2] = {shared.numbers.q_factor[top], shared.numbers.q_factor[top + 8]};
    const float k_factor[2] = {shared.numbers.k_factor[top], shared.numbers.k_factor[top + 8]};
#pragma unroll 1
    for (int p = 0; p < 4; ++p) {
        const int channel = 64 * group + 16 * p;
        float decay[8], q[8], k[8];
        piece_decays(decay, load_piece_rows(a_tile, 16 * warp, p, lane), gate, dt_bias, channel, top, tokens, lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, p, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, p, lane), k_factor);
        PieceDecays decays(decay);
        decays.join_all(lane);
        write_block_decays<dim>(shared.blocks, decays, channel, warp, lane);
        store_piece_rows(shared.scaled.to_k[group], 16 * warp, p, scaled(k, decays.to), lane);
        store_piece_rows(shared.scaled.from_k[group], 16 * warp, p, scaled(k, decays.from), lane);
        store_piece_rows(shared.scaled.from_q[group], 16 * warp, p, scaled(q, decays.from), lane);
    }
    __syncthreads();

    const DiagonalBlock dP(shared.dP, warp, lane), Z(shared.Z, warp, lane);
    float own[2];  // dP_ii
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int g = lane / 4;
        const uint32_t pair = __shfl_sync(~0U, dP.rows.x[3 * r], 4 * g + g / 2);
        own[r] = g % 2 == 0 ? low_half(pair) : high_half(pair);
    }
    float along_q[2] = {}, along_k[2] = {};
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        const int channel = 64 * group + 16 * p;
        float decay[8], q[8], k[8];
        piece_decays(decay, load_piece_rows(a_tile, 16 * warp, p, lane), gate, dt_bias, channel, top, tokens, lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, p, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, p, lane), k_factor);
        PieceDecays decays(decay);
        PieceGradients d;
#pragma unroll
        for (int e = 0; e < 8; ++e) d.q[e] = own[e / 2 % 2] * k[e], d.k[e] = own[e / 2 % 2] * q[e], d.later[e] = 0.0F;
        add_level<1>(d, q, k, decays, dP, Z, lane);
        decays.join<1>(lane);
        add_level<2>(d, q, k, decays, dP, Z, lane);
        decays.join<2>(lane);
        add_level<4>(d, q, k, decays, dP, Z, lane);
        decays.join<4>(lane);
        add_level<8>(d, q, k, decays, dP, Z, lane);
        decays.join<8>(lane);
        add_blocks<dim>(d, q, k, decays, shared, group, p, warp, lane);

        float before[4], behind[4], writes[8], write_sums[4];
        decays_of_blocks<dim>(before, shared.blocks, 0, warp, channel, lane);
        decays_of_blocks<dim>(behind, shared.blocks, warp + 1, 4, channel, lane);
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const float eG = decays.from[e] * of_channel(before, e), er = decays.to[e] * of_channel(behind, e);
            const float dq = call.scale * eG * dQ[8 * p + e], dk = -eG * read[8 * p + e], dk_write = er * write[8 * p + e];
            d.later[e] += q[e] * dq + k[e] * dk;
            d.q[e] += dq, d.k[e] += dk + dk_write;
            writes[e] = k[e] * dk_write;
            along_q[e / 2 % 2] += q[e] * d.q[e], along_k[e / 2 % 2] += k[e] * d.k[e];
            dQ[8 * p + e] = d.q[e], read[8 * p + e] = d.k[e];
        }
        sum_from_token(d.later, lane);
        sum_before_token(writes, write_sums, lane);
#pragma unroll
        for (int e = 0; e < 8; ++e) write[8 * p + e] = d.later[e] + writes[e];
        if (lane < 4) {
#pragma unroll
            for (int h = 0; h < 2; ++h) {
                const int c = channel + 8 * h + 2 * lane;
                *reinterpret_cast<float2*>(&shared.later[warp][c]) = make_float2(d.later[4 * h], d.later[4 * h + 1]);
                *reinterpret_cast<float2*>(&shared.writes[warp][c]) = make_float2(write_sums[2 * h], write_sums[2 * h + 1]);
            }
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum_q = sum_columns(along_q[r]), sum_k = sum_columns(along_k[r]);
        if (lane % 4 == 0) shared.along[group][0][at.row(r)] = sum_q, shared.along[group][1][at.row(r)] = sum_k;
    }
    __syncthreads();

    // Normalisation, and the gates' gradients; the results take their inputs' places.
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        along_q[r] = along_k[r] = 0.0F;
        if (call.l2_normalize) {
#pragma unroll
            for (int t = 0; t < tiles; ++t)
                along_q[r] += shared.along[t][0][at.row(r)], along_k[r] += shared.along[t][1][at.row(r)];
        }
    }
    float dt_columns[16] = {}, A_log = 0.0F;
#pragma unroll
    for (int p = 0; p < 4; ++p) {
        float q[8], k[8], da[8];
        const Left gates = load_piece_rows(a_tile, 16 * warp, p, lane);
        unpack(q, load_piece_rows(q_tile, 16 * warp, p, lane), q_factor);
        unpack(k, load_piece_rows(k_tile, 16 * warp, p, lane), k_factor);
#pragma unroll
        for (int i = 0; i < 4; ++i) {  // this thread's channels
            const int c = 64 * group + 16 * p + i / 2 * 8 + lane % 4 * 2 + i % 2;
            float rest = 0.0F, chunk_decay = 1.0F;
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                rest += shared.state_columns[group][w][c % 64];
                chunk_decay *= shared.blocks[w][c];
            }
            rest *= chunk_decay;
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                if (w > warp) rest += shared.later[w][c];
                if (w < warp) rest += shared.writes[w][c];
            }
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                const int e = i / 2 * 4 + 2 * r + i % 2;
                const uint32_t pair = gates.x[e / 2];
                const float z = (e % 2 == 0 ? low_half(pair) : high_half(pair)) + dt_bias[c];
                float by_a, by_A_log;  // derivatives of the log decay
                if (gate.bound < 0.0F) {
                    const float slope = sigmoid_fast(gate.rate * z) * sigmoid_fast(-gate.rate * z);
                    by_a = gate.bound * slope * gate.rate, by_A_log = by_a * z;
                } else {
                    by_a = -gate.rate * sigmoid_fast(z), by_A_log = log2_decay(gate, z) / log2_e;
                }
                const float dg = write[8 * p + e] + rest;
                da[e] = by_a * dg;
                if (at.row(r) < tokens) dt_columns[4 * p + i] += da[e], A_log += by_A_log * dg;
            }
        }
#pragma unroll
        for (int e = 0; e < 8; ++e) {
            const int r = e / 2 % 2;
            q[e] = q_factor[r] * (dQ[8 * p + e] - q[e] * along_q[r]);
            k[e] = k_factor[r] * (read[8 * p + e] - k[e] * along_k[r]);
        }
        store_piece_rows(q_tile, 16 * warp, p, packed(q), lane);
        store_piece_rows(k_tile, 16 * warp, p, packed(k), lane);
        store_piece_rows(a_tile, 16 * warp, p, packed(da), lane);
    }
    write_column_sums(shared.dt_columns[group], dt_columns, at, warp);
    A_log = sum_rows(sum_columns(A_log));
    if (lane == 0) shared.A_log[threadIdx.x / 32] = A_log;
    __syncthreads();

    if (thread < 64) {
        float sum = 0.0F;
#pragma unroll
        for (int w = 0; w < 4; ++w) sum += shared.dt_columns[group][w][thread];
        backward.dt_bias_sums[n * dim + 64 * group + thread] = sum;
    }
    if (threadIdx.x == 64) {
        float sum = 0.0F;
#pragma unroll
        for (int w = 0; w < 4 * tiles; ++w) sum += shared.A_log[w];
        backward.A_log_sums[n] = sum;
    }
    if (threadIdx.x < tokens) {
        const int t = threadIdx.x;
        float sum = 0.0F;
#pragma unroll
        for (int i = 0; i < tiles; ++i) sum += shared.beta_rows[i][t];
        const float beta = shared.numbers.beta[t];
        backward.b.data[(start + first + t) * backward.b.stride + head] =
            __float2bfloat16_rn(beta > 0.0F ? sum / beta * (1.0F - beta) : 0.0F);
    }
    const int column = head * dim + 64 * group;
    const auto store = [&](MutableDeviceRows out, DeviceRows raw, bool silu, const char* tile) {
        with_alignment(backward.alignment, [&](auto alignment) {
            store_gradient<alignment>(out, raw, silu, tile, start + first, tokens, column, thread);
        });
    };
    store(backward.q, backward.raw_q, backward.silu, q_tile);
    store(backward.k, backward.raw_k, backward.silu, k_tile);
    store(backward.v, backward.raw_v, backward.silu, shared.dW[group]);
    store(backward.a, {}, false, a_tile);
}

/// Gradients of A_log and dt_bias: one block a head, sums over chunks in a fixed order. Thread (part, channel); the sums of
/// A_log stand behind the channels.
template <int dim>
__global__ void __launch_bounds__(1024)
    sum_gates_kernel(const float* A_log_sums, const float* dt_bias_sums, float* A_log, float* dt_bias, int rows, int heads,
                     int chunks) {
    constexpr int parts = 1024 / dim;
    __shared__ float sums[parts][dim], A_log_parts[1024];
    const int head = blockIdx.x, part = threadIdx.x / dim, channel = threadIdx.x % dim, all = rows * chunks;
    const auto tile = [&](int i) { return (int64_t(i / chunks) * heads + head) * chunks + i % chunks; };
    float sum = 0.0F, A_log_sum = 0.0F;
    for (int i = part; i < all; i += parts) sum += dt_bias_sums[tile(i) * dim + channel];
    for (int i = threadIdx.x; i < all; i += 1024) A_log_sum += A_log_sums[tile(i)];
    sums[part][channel] = sum;
    A_log_parts[threadIdx.x] = A_log_sum;
    __syncthreads();
    if (part == 0) {
        for (int i = 1; i < parts; ++i) sum += sums[i][channel];
        dt_bias[head * dim + channel] = sum;
    }
    for (int half = 512; half > 0; half /= 2) {
        if (threadIdx.x < half) A_log_parts[threadIdx.x] += A_log_parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) A_log[head] = A_log_parts[0];
}

}  // namespace

template <int dim>
void launch_backward_chunks(const BackwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(ChunkShared<dim>);
    static_assert(blocks_at_once<dim> * (bytes + 1024) <= 233472);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(backward_chunks_kernel<dim>, bytes, "Kimi Delta Attention on CUDA");
    const ForwardCall& f = call.forward;
    backward_chunks_kernel<dim><<<chunk_grid(f), 2 * dim, bytes, stream>>>(call);
    const int rows = static_cast<int>(chunk_grid(f).y) / f.heads;
    sum_gates_kernel<dim><<<f.heads, 1024, 0, stream>>>(call.A_log_sums, call.dt_bias_sums, call.A_log, call.dt_bias, rows,
                                                        f.heads, f.chunks);
}

template void launch_backward_chunks<64>(const BackwardCall&, cudaStream_t);
template void launch_backward_chunks<128>(const BackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::kimi_delta
