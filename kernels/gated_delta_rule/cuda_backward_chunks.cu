// SPDX-License-Identifier: Apache-2.0
// The part of the backward pass that needs no chain: one block a chunk, one warpgroup for 64 columns of every result of
// `dim` columns. Solving (I + L) V' = b W, L the strictly lower part of b_i Gam_ij k_i.k_j, is differentiated as such:
// the gradient of the right-hand side is dW / b, that of L is -(dW / b) V'^T, so that neither the inverse nor W is
// needed:
//     dP = scale Gam (dO V'^T),  Z = -Gam (dW V'^T) below the diagonal,  d(logit of b) = (dW . V') (1 - b) / b
//     dQ = scale eg (dO S^T) + dP K,  dK = er (V' dS^T) - eg (dW S^T) + dP^T Q + (Z + Z^T) K
// for normalised q and k; the factors of normalisation go into the factors per row and into dP and Z. A decay's
// gradient is the sum over all uses that it lies on the way of: rows of Q dQ, K dK and of dP QK^T and Z KK^T, minus
// their columns.
#include "kernels/cuda/fragments.cuh"
#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {
namespace {

using namespace hopper;

template <int dim>
struct ChunkShared {
    static constexpr int tiles = dim / 64;
    char q[tiles][tile_bytes], k[tiles][tile_bytes];
    char dO[tiles][tile_bytes];      ///< then dQ
    char values[tiles][tile_bytes];  ///< V', then dK
    char dW[tiles][tile_bytes];
    char S[tiles][tiles][tile_bytes], dS[tiles][tiles][tile_bytes];
    char dP[tile_bytes], Z[tile_bytes];
    ChunkScalars scalars;
    float pair_rows[tiles][64];        ///< sums over columns of dP QK^T and Z KK^T
    float pair_columns[tiles][4][64];  ///< over the 16 rows of a warp
    float gate_rows[tiles][64];        ///< parts of the rows of dG
    float beta_rows[tiles][64];        ///< parts of dW . V'
    float state_sum[4 * tiles];        ///< a warp's part of dS . S + K . dKs, as they count in the last token's dG
    uint64_t loaded[2];                ///< what needs no state; the states

    /// Parts of q.dq and k.dk, where the states have been.
    __device__ float* along(int which, int tile) { return reinterpret_cast<float*>(S) + (which * tiles + tile) * 64; }
};

/// x . (row of tile) over the 64 columns, for rows top and top + 8.
__device__ void dot_rows(const float (&x)[32], uint32_t tile, float (&sum)[2]) {
    sum[0] = sum[1] = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Left y = load_rows(tile, i);
#pragma unroll
        for (int j = 0; j < 4; ++j)
            sum[j % 2] += x[8 * i + 2 * j] * low_half(y.x[j]) + x[8 * i + 2 * j + 1] * high_half(y.x[j]);
    }
    sum[0] = sum_columns(sum[0]);
    sum[1] = sum_columns(sum[1]);
}

/// Gam_ij for j <= i, else 0, in fp16: [2 i + r] are columns 8 i + .. of row r.
__device__ void decays(__half2 (&Gam)[16], const ChunkScalars& s, const Place& at) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const int column = at.column(i);
        const float2 Gj = *reinterpret_cast<const float2*>(&s.log_decay[column]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = at.row(r);
            const float G = s.log_decay[row];
            Gam[2 * i + r] = __floats2half2_rn(column <= row ? exp2_fast(G - Gj.x) : 0.0F,
                                               column + 1 <= row ? exp2_fast(G - Gj.y) : 0.0F);
        }
    }
}

__device__ void write_row_sums(float (&rows)[64], const float (&row)[2], const Place& at) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum = sum_columns(row[r]);
        if (at.lane % 4 == 0) rows[at.row(r)] = sum;
    }
}

/// One of dP and Z, and this thread's part of the sums of its product with QK^T or KK^T: factor_i Gam_ij / |k_j| (X
/// V'^T)_ij.
template <int dim, bool strict>
__device__ void pair_side(ChunkShared<dim>& shared, char (&X)[dim / 64][tile_bytes], char (&Y)[dim / 64][tile_bytes],
                          const float (&factor)[2], const __half2 (&Gam)[16], char (&out)[tile_bytes], float (&row)[2],
                          float (&column)[16], const Place& at) {
    float d[32], YK[32];
    hold(d);
    hold(YK);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, shared_address(X[i / 4]), shared_address(shared.values[i / 4]), i % 4,
                                               i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(YK, shared_address(Y[i / 4]), shared_address(shared.k[i / 4]), i % 4,
                                               i > 0);
    products_commit();
    products_wait<0>();
    hold(d);
    hold(YK);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float2 kj = *reinterpret_cast<const float2*>(&shared.scalars.k_factor[at.column(i)]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float2 decay = __half22float2(Gam[2 * i + r]);
            float* x = &d[4 * i + 2 * r];
            x[0] *= decay.x * factor[r] * kj.x, x[1] *= decay.y * factor[r] * kj.y;
            if (strict) {
                if (at.column(i) == at.row(r)) x[0] = 0.0F;
                if (at.column(i) + 1 == at.row(r)) x[1] = 0.0F;
            }
            const float mx = x[0] * YK[4 * i + 2 * r], my = x[1] * YK[4 * i + 2 * r + 1];
            row[r] += mx + my;
            column[2 * i] += mx, column[2 * i + 1] += my;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) store_rows(shared_address(out), i, left_operand(d, i));
    publish_shared();
}

/// Blocks that a multiprocessor holds.
template <int dim>
constexpr int blocks_at_once = dim == 64 ? 3 : 1;

/// Brings what a later block will load into the L2 cache, while this one computes: a multiprocessor holds too few
/// blocks for one to load while another computes.
template <int dim>
__device__ void prefetch_chunk(const CudaBackwardCall& backward) {
    const CudaForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, threads = 128 * tiles;
    constexpr int state_bytes = tiles * tiles * tile_bytes, value_bytes = tiles * tile_bytes;
    const int64_t n = int64_t(blockIdx.y) * call.chunks + blockIdx.x + backward.multiprocessors * blocks_at_once<dim>;
    if (n >= int64_t(gridDim.y) * call.chunks) return;
    if (threadIdx.x == 0) {
        bulk_prefetch(call.saved.states + n * state_bytes, state_bytes);
        bulk_prefetch(backward.error_gradients + n * value_bytes, value_bytes);
        bulk_prefetch(backward.state_gradients + n * state_bytes, state_bytes);
        bulk_prefetch(call.saved.values + n * value_bytes, value_bytes);
    }
    if (call.packed > 0) return;  // where that block's tokens lie takes a search
    const int chain = static_cast<int>(n / call.chunks), first = static_cast<int>(n % call.chunks) * chunk_tokens;
    const int64_t start = int64_t(chain / call.heads) * call.time;
#pragma unroll
    for (int i = threadIdx.x; i < 3 * 64; i += threads) {
        const int token = first + i % 64;
        const DeviceRows rows = i < 64 ? call.k : i < 128 ? backward.output_gradient : call.q;
        if (token < call.time)
            bulk_prefetch(rows.data + (start + token) * rows.stride + chain % call.heads * dim, dim * 2);
    }
}

template <int dim>
__global__ void __launch_bounds__(2 * dim, blocks_at_once<dim>)
    backward_chunks_kernel(const __grid_constant__ CudaBackwardCall backward) {
    const CudaForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, threads = 128 * tiles;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ChunkShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const auto [n, start, time, first, head] = chunk_of_block(call);
    if (first >= time) {
        if (threadIdx.x < 2) backward.sums[2 * n + threadIdx.x] = 0.0F;
        return;
    }
    const int tokens = min(chunk_tokens, time - first);
    const Place at{16 * warp + lane / 4, lane};
    const ChunkScalars& s = shared.scalars;

    if (threadIdx.x == 0) {
        const uint32_t values_loaded = shared_address(&shared.loaded[0]);
        const uint32_t states_loaded = shared_address(&shared.loaded[1]);
        constexpr int state_bytes = tiles * tiles * tile_bytes, value_bytes = tiles * tile_bytes;
        barrier_init(values_loaded, 1);
        barrier_init(states_loaded, 1);
        publish_barriers();
        barrier_arrive_expect(values_loaded, 2 * value_bytes + int(sizeof(ChunkScalars)));
        bulk_load(shared_address(&shared.scalars), call.saved.scalars + n, sizeof(ChunkScalars), values_loaded);
        bulk_load(shared_address(shared.dW), backward.error_gradients + n * value_bytes, value_bytes, values_loaded);
        bulk_load(shared_address(shared.values), call.saved.values + n * value_bytes, value_bytes, values_loaded);
        barrier_arrive_expect(states_loaded, 2 * state_bytes);
        bulk_load(shared_address(shared.S), call.saved.states + n * state_bytes, state_bytes, states_loaded);
        bulk_load(shared_address(shared.dS), backward.state_gradients + n * state_bytes, state_bytes, states_loaded);
    }
    const auto load = [&](char* target, DeviceRows rows) {
        load_tiles<dim, threads>(shared_address(target), rows, start, head * dim, first, time, threadIdx.x);
    };
    load(shared.k[0], call.k);
    load(shared.dO[0], backward.output_gradient);
    load(shared.q[0], call.q);
    copies_commit();
    copies_wait<0>();
    publish_shared();
    __syncthreads();
    barrier_wait(shared_address(&shared.loaded[0]), 0);

    {
        __half2 Gam[16];
        decays(Gam, s, at);
        float factor[2], row[2] = {}, column[16] = {};
        if (group == 0) {
#pragma unroll
            for (int r = 0; r < 2; ++r) factor[r] = -s.k_factor[at.row(r)];
            pair_side<dim, true>(shared, shared.dW, shared.k, factor, Gam, shared.Z, row, column, at);
        }
        if (group == tiles - 1) {
#pragma unroll
            for (int r = 0; r < 2; ++r) factor[r] = call.scale * s.q_factor[at.row(r)];
            pair_side<dim, false>(shared, shared.dO, shared.q, factor, Gam, shared.dP, row, column, at);
        }
        write_row_sums(shared.pair_rows[group], row, at);
        write_column_sums(shared.pair_columns[group], column, at, warp);
    }
    barrier_wait(shared_address(&shared.loaded[1]), 0);
    prefetch_chunk<dim>(backward);

    // The products with states, for key columns 64 group ..
    float dQ[32], dK[32];
    {
        float other[32];
        hold(dQ);
        hold(dK);
        hold(other);
        products_begin();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_rows>(dQ, shared_address(shared.dO[i / 4]),
                                                shared_address(shared.S[i / 4][group]), i % 4, i > 0);
        products_commit();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_rows>(dK, shared_address(shared.values[i / 4]),
                                                shared_address(shared.dS[i / 4][group]), i % 4, i > 0);
        products_commit();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_rows>(other, shared_address(shared.dW[i / 4]),
                                                shared_address(shared.S[i / 4][group]), i % 4, i > 0);
        products_commit();

        // sum(dS * S), this thread's part of both states
        float sum = 0;
        const uint4* S = reinterpret_cast<const uint4*>(shared.S);
        const uint4* dS = reinterpret_cast<const uint4*>(shared.dS);
#pragma unroll 4
        for (int i = threadIdx.x; i < dim * dim / 8; i += threads) {
            const uint4 x = S[i], y = dS[i];
            const uint32_t xs[4] = {x.x, x.y, x.z, x.w}, ys[4] = {y.x, y.y, y.z, y.w};
#pragma unroll
            for (int j = 0; j < 4; ++j) sum += low_half(xs[j]) * low_half(ys[j]) + high_half(xs[j]) * high_half(ys[j]);
        }
        sum *= exp2_fast(s.log_decay[63]);

        float beta[2] = {};
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Left x = load_rows(shared_address(shared.dW[group]), i);
            const Left y = load_rows(shared_address(shared.values[group]), i);
#pragma unroll
            for (int j = 0; j < 4; ++j)
                beta[j % 2] += low_half(x.x[j]) * low_half(y.x[j]) + high_half(x.x[j]) * high_half(y.x[j]);
        }
        write_row_sums(shared.beta_rows[group], beta, at);

        float eg[2], er[2], q_factor[2];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int row = at.row(r);
            const float k_factor = s.k_factor[row];
            eg[r] = exp2_fast(s.log_decay[row]);
            er[r] = exp2_fast(s.log_decay[63] - s.log_decay[row]) * k_factor;
            q_factor[r] = call.scale * eg[r] * s.q_factor[row];
            eg[r] *= -k_factor;
        }
        products_wait<0>();
        hold(dQ);
        hold(dK);
        hold(other);
        float rows_q[2], rows_k[2], rows_u[2];
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            dQ[i] *= q_factor[i / 2 % 2];
            dK[i] *= er[i / 2 % 2];
            other[i] *= eg[i / 2 % 2];
        }
        dot_rows(dQ, shared_address(shared.q[group]), rows_q);
        dot_rows(dK, shared_address(shared.k[group]), rows_k);
#pragma unroll
        for (int i = 0; i < 32; ++i) dK[i] += other[i];
        dot_rows(other, shared_address(shared.k[group]), rows_u);
        if (lane % 4 == 0) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                shared.gate_rows[group][at.row(r)] = rows_q[r] - rows_k[r] + rows_u[r];
                sum += rows_k[r];
            }
        }
        sum = sum_rows(sum_columns(sum));
        if (lane == 0) shared.state_sum[threadIdx.x / 32] = sum;
    }
    publish_shared();
    __syncthreads();

    {
        const uint32_t k = shared_address(shared.k[group]), q = shared_address(shared.q[group]);
        hold(dQ);
        hold(dK);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            product<Lie::as_rows, Lie::as_rows>(dQ, shared_address(shared.dP), k, i);
            product<Lie::as_columns, Lie::as_rows>(dK, shared_address(shared.dP), q, i);
            product<Lie::as_rows, Lie::as_rows>(dK, shared_address(shared.Z), k, i);
            product<Lie::as_columns, Lie::as_rows>(dK, shared_address(shared.Z), k, i);
        }
        products_commit();
    }

    // Gradients of the gates, by the first warp: lane l has tokens 2 l and 2 l + 1.
    if (threadIdx.x < 32) {
        float last = 0, dG[2], db[2];
#pragma unroll
        for (int i = 0; i < 4 * tiles; ++i) last += shared.state_sum[i];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const int t = 2 * lane + j;
            dG[j] = db[j] = 0.0F;
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                dG[j] += shared.gate_rows[i][t];
                dG[j] += shared.pair_rows[i][t];
                db[j] += shared.beta_rows[i][t];
#pragma unroll
                for (int w = 0; w < 4; ++w) dG[j] -= shared.pair_columns[i][w][t];
            }
        }
        if (lane == 31) dG[1] += last;
        // sums from a token to the chunk's end
        float suffix = dG[0] + dG[1];
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const float other = __shfl_down_sync(~0U, suffix, step);
            if (lane + step < 32) suffix += other;
        }
        const float dg[2] = {suffix, suffix - dG[0]};
        float A_log = 0, dt_bias = 0;
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const int t = 2 * lane + j;
            if (t >= tokens) continue;
            const int64_t token = start + first + t;
            const float x = __bfloat162float(call.a.data[token * call.a.stride + head]) + call.dt_bias[head];
            const float rate = expf(call.A_log[head]), beta = s.beta[t];
            const float softplus = fmaxf(x, 0.0F) + log1pf(expf(-fabsf(x)));
            const float da = -rate / (1.0F + expf(-x)) * dg[j];
            backward.a.data[token * backward.a.stride + head] = __float2bfloat16_rn(da);
            backward.b.data[token * backward.b.stride + head] =
                __float2bfloat16_rn(beta > 0.0F ? db[j] / beta * (1.0F - beta) : 0.0F);
            A_log -= dg[j] * rate * softplus;
            dt_bias += da;
        }
        A_log = sum_rows(sum_columns(A_log));
        dt_bias = sum_rows(sum_columns(dt_bias));
        if (lane == 0) backward.sums[2 * n] = A_log, backward.sums[2 * n + 1] = dt_bias;
    }

    products_wait<0>();
    hold(dQ);
    hold(dK);
    float along_q[2], along_k[2];
    dot_rows(dQ, shared_address(shared.q[group]), along_q);
    dot_rows(dK, shared_address(shared.k[group]), along_k);
    if (lane % 4 == 0) {
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            shared.along(0, group)[at.row(r)] = along_q[r];
            shared.along(1, group)[at.row(r)] = along_k[r];
        }
    }
    __syncthreads();
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = at.row(r);
        along_q[r] = along_k[r] = 0;
        if (call.l2_normalize) {
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                along_q[r] += shared.along(0, i)[row];
                along_k[r] += shared.along(1, i)[row];
            }
            along_q[r] *= s.q_factor[row] * s.q_factor[row];
            along_k[r] *= s.k_factor[row] * s.k_factor[row];
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const Left q = load_rows(shared_address(shared.q[group]), i), k = load_rows(shared_address(shared.k[group]), i);
        Left x, y;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int e = 8 * i + 2 * j, r = j % 2;
            x.x[j] = pack(dQ[e] - along_q[r] * low_half(q.x[j]), dQ[e + 1] - along_q[r] * high_half(q.x[j]));
            y.x[j] = pack(dK[e] - along_k[r] * low_half(k.x[j]), dK[e + 1] - along_k[r] * high_half(k.x[j]));
        }
        store_rows(shared_address(shared.dO[group]), i, x);
        store_rows(shared_address(shared.values[group]), i, y);
    }
    __syncthreads();
    const int column = head * dim + 64 * group;
    const auto store = [&](MutableDeviceRows out, DeviceRows raw, const char* tile) {
        with_alignment(backward.alignment, [&](auto alignment) {
            store_gradient<alignment>(out, raw, backward.silu, tile, start + first, tokens, column, thread);
        });
    };
    store(backward.q, backward.raw_q, shared.dO[group]);
    store(backward.k, backward.raw_k, shared.values[group]);
    store(backward.v, backward.raw_v, shared.dW[group]);
}

/// Gradients of A_log and dt_bias: one block a head, sums in a fixed order.
__global__ void sum_gates_kernel(const float* sums, float* A_log, float* dt_bias, int rows, int heads, int chunks) {
    __shared__ float parts[2][256];
    const int head = blockIdx.x;
    float x[2] = {};
    for (int i = threadIdx.x; i < rows * chunks; i += 256) {
        const int64_t n = (int64_t(i / chunks) * heads + head) * chunks + i % chunks;
        x[0] += sums[2 * n], x[1] += sums[2 * n + 1];
    }
    parts[0][threadIdx.x] = x[0], parts[1][threadIdx.x] = x[1];
    __syncthreads();
    for (int half = 128; half > 0; half /= 2) {
        if (threadIdx.x < half) {
            parts[0][threadIdx.x] += parts[0][threadIdx.x + half];
            parts[1][threadIdx.x] += parts[1][threadIdx.x + half];
        }
        __syncthreads();
    }
    if (threadIdx.x == 0) A_log[head] = parts[0][0], dt_bias[head] = parts[1][0];
}

}  // namespace

template <int dim>
void launch_backward_chunks(const CudaBackwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(ChunkShared<dim>);
    static_assert(blocks_at_once<dim> * (bytes + 1024) <= 233472);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(backward_chunks_kernel<dim>, bytes, "gated delta rule on CUDA");
    const CudaForwardCall& f = call.forward;
    backward_chunks_kernel<dim><<<chunk_grid(f), 2 * dim, bytes, stream>>>(call);
    const int rows = static_cast<int>(chunk_grid(f).y) / f.heads;
    sum_gates_kernel<<<f.heads, 256, 0, stream>>>(call.sums, call.A_log, call.dt_bias, rows, f.heads, f.chunks);
}

template void launch_backward_chunks<64>(const CudaBackwardCall&, cudaStream_t);
template void launch_backward_chunks<128>(const CudaBackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels
