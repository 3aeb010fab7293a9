// SPDX-License-Identifier: Apache-2.0
// The part of the backward pass that needs no chain: one block a chunk, one warpgroup for 64 columns of every result of
// `dim` columns. With W = V - eg K S, V' = Ag W, dAg = dV' W^T, dPg = dO V'^T, dR = Gam dAg b, dA = -(R^T dR R^T) below
// the diagonal, Z = b dA, dP = scale Gam dPg:
//     dQ = scale eg (dO S^T) + dP K,  dK = er (V' dS^T) - eg (dW S^T) + dP^T Q + (Z + Z^T) K
// for normalised q and k; the factors of normalisation go into the factors per row and into dP and Z.
#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {
namespace {

using namespace hopper;

template <int dim>
struct ChunkShared {
    static constexpr int tiles = dim / 64;
    char q[tiles][tile_bytes], k[tiles][tile_bytes];
    char v[tiles][tile_bytes];  ///< V, then W, then dQ
    char dO[tiles][tile_bytes];
    char dV[tiles][tile_bytes];  ///< gradient of V', then dK
    char dW[tiles][tile_bytes];
    char values[tiles][tile_bytes];  ///< V'
    char S[tiles][tiles][tile_bytes], dS[tiles][tiles][tile_bytes];
    char R[tile_bytes], dR[tile_bytes], dP[tile_bytes], Z[tile_bytes];
    ChunkScalars scalars;
    float row_A[64], row_P[64], row_Z[64];                    ///< sums over columns
    float column_A[4][64], column_P[4][64], column_b[4][64];  ///< sums over the 16 rows of a warp
    float along_q[tiles][64], along_k[tiles][64];             ///< parts of q.dq and k.dk
    float gate_rows[tiles][64], key_rows[tiles][64];          ///< parts of the rows of dG; rows of K dKs
    float state_sum[4 * tiles];
    float chunk_sum[2];
    uint64_t loaded[2];  ///< S; the rest of what the chains left
};

/// Sum over the four lanes that share a row.
__device__ float sum_columns(float x) {
    x += __shfl_xor_sync(~0U, x, 1);
    return x + __shfl_xor_sync(~0U, x, 2);
}
/// Sum over the eight lanes that share a column.
__device__ float sum_rows(float x) {
    x += __shfl_xor_sync(~0U, x, 4);
    x += __shfl_xor_sync(~0U, x, 8);
    return x + __shfl_xor_sync(~0U, x, 16);
}

/// Place of a thread in a 64 x 64 result.
struct Place {
    int top, lane;
    __device__ int row(int r) const { return top + 8 * r; }
    __device__ int column(int i) const { return 8 * i + lane % 4 * 2; }
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

/// Gam_ij for j <= i, else 0.
__device__ float2 decay_between(const ChunkScalars& s, int row, int column) {
    const float G = s.log_decay[row];
    return {column <= row ? exp2_fast(G - s.log_decay[column]) : 0.0F,
            column + 1 <= row ? exp2_fast(G - s.log_decay[column + 1]) : 0.0F};
}

__device__ void write_sums(float (&rows)[64], float (&columns)[4][64], const float (&row)[2], const float (&column)[16],
                           const Place& at, int warp) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum = sum_columns(row[r]);
        if (at.lane % 4 == 0) rows[at.row(r)] = sum;
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float sum = sum_rows(column[i]);
        if (at.lane < 4) columns[warp][at.column(i / 2) + i % 2] = sum;
    }
}

/// The gradient through Ag and R: row and column sums, and Z.
template <int dim>
__device__ void inverse_side(ChunkShared<dim>& shared, const uint32_t (&R)[16], const Place& at, int warp) {
    const ChunkScalars& s = shared.scalars;
    float dA[32], KK[32];
    hold(dA);
    hold(KK);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(dA, shared_address(shared.dV[i / 4]), shared_address(shared.v[i / 4]),
                                               i % 4, i > 0);
    products_commit();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(KK, shared_address(shared.k[i / 4]), shared_address(shared.k[i / 4]),
                                               i % 4, i > 0);
    products_commit();
    products_wait<1>();
    hold(dA);
    float row[2] = {}, column[16] = {}, column_b[16] = {};
    float inverse[32];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float2 b = *reinterpret_cast<const float2*>(&s.beta[at.column(i)]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float2 decay = decay_between(s, at.row(r), at.column(i));
            const __half2 pair = reinterpret_cast<const __half2&>(R[2 * i + r]);
            float* d = &dA[4 * i + 2 * r];
            float* inv = &inverse[4 * i + 2 * r];
            inv[0] = __low2float(pair), inv[1] = __high2float(pair);
            const float x = decay.x * d[0], y = decay.y * d[1];  // dAb
            column_b[2 * i] += x * inv[0], column_b[2 * i + 1] += y * inv[1];
            d[0] = x * b.x, d[1] = y * b.y;  // dR
            const float mx = d[0] * inv[0], my = d[1] * inv[1];
            row[r] += mx + my;
            column[2 * i] += mx, column[2 * i + 1] += my;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        store_rows(shared_address(shared.dR), i, left_operand(dA, i));
        store_rows(shared_address(shared.R), i, left_operand(inverse, i));
    }
    publish_shared();
    write_sums(shared.row_A, shared.column_A, row, column, at, warp);
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        const float sum = sum_rows(column_b[i]);
        if (at.lane < 4) shared.column_b[warp][at.column(i / 2) + i % 2] = sum;
    }
    named_barrier(1, 128);

    products_wait<0>();
    hold(KK);
    hold(dA);
    products_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i)
        product<Lie::as_columns, Lie::as_rows>(dA, shared_address(shared.R), shared_address(shared.dR), i, i > 0);
    products_commit();
    products_wait<0>();
    hold(dA);
    Left y[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        y[i] = left_operand(dA, i);
        hold(y[i]);
    }
    float X[32];
    hold(X);
    products_begin();
#pragma unroll
    for (int i = 0; i < 4; ++i) product<Lie::as_columns>(X, y[i], shared_address(shared.R), i, i > 0);
    products_commit();
    products_wait<0>();
    hold(X);
    float row_Z[2] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float2 kj = *reinterpret_cast<const float2*>(&s.k_factor[at.column(i)]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const int m = at.row(r);
            float* x = &X[4 * i + 2 * r];
            x[0] = at.column(i) < m ? -x[0] * s.k_factor[m] * kj.x : 0.0F;
            x[1] = at.column(i) + 1 < m ? -x[1] * s.k_factor[m] * kj.y : 0.0F;
            row_Z[r] += x[0] * KK[4 * i + 2 * r] + x[1] * KK[4 * i + 2 * r + 1];
            x[0] *= s.beta[m], x[1] *= s.beta[m];
        }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const float sum = sum_columns(row_Z[r]);
        if (at.lane % 4 == 0) shared.row_Z[at.row(r)] = sum;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) store_rows(shared_address(shared.Z), i, left_operand(X, i));
    publish_shared();
}

/// The gradient through Pg: row and column sums, and dP with the factors of q and k.
template <int dim>
__device__ void query_side(ChunkShared<dim>& shared, float scale, const Place& at, int warp) {
    const ChunkScalars& s = shared.scalars;
    float dP[32], QK[32];
    hold(dP);
    hold(QK);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(dP, shared_address(shared.dO[i / 4]),
                                               shared_address(shared.values[i / 4]), i % 4, i > 0);
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(QK, shared_address(shared.q[i / 4]), shared_address(shared.k[i / 4]),
                                               i % 4, i > 0);
    products_commit();
    products_wait<0>();
    hold(dP);
    hold(QK);
    float row[2] = {}, column[16] = {};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        const float2 kj = *reinterpret_cast<const float2*>(&s.k_factor[at.column(i)]);
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            const float2 decay = decay_between(s, at.row(r), at.column(i));
            const float factor = scale * s.q_factor[at.row(r)];
            float* d = &dP[4 * i + 2 * r];
            d[0] *= decay.x * factor * kj.x, d[1] *= decay.y * factor * kj.y;
            const float mx = d[0] * QK[4 * i + 2 * r], my = d[1] * QK[4 * i + 2 * r + 1];
            row[r] += mx + my;
            column[2 * i] += mx, column[2 * i + 1] += my;
        }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) store_rows(shared_address(shared.dP), i, left_operand(dP, i));
    publish_shared();
    write_sums(shared.row_P, shared.column_P, row, column, at, warp);
}

/// 64 tokens of 64 columns of a gradient from a tile to the caller's rows, through the derivative of SiLU if asked.
template <int alignment>
__device__ void store_gradient(MutableDeviceRows out, DeviceRows raw, bool silu, const char* tile, int64_t first_token,
                               int tokens, int column, int thread) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int at = i * 128 + thread, row = at / 8, piece = at % 8;
        if (row >= tokens) continue;
        uint4 x = *reinterpret_cast<const uint4*>(tile + tile_offset(row, piece));
        const int64_t token = first_token + row;
        if (silu) {
            const uint4 before = load_piece<alignment>(raw.data + token * raw.stride + column + piece * 8);
            const auto chain = [](uint32_t& gradient, uint32_t input) {
                const auto derivative = [](float z) {
                    const float sigmoid = 1.0F / (1.0F + __expf(-z));
                    return sigmoid * (1.0F + z * (1.0F - sigmoid));
                };
                gradient = pack(low_half(gradient) * derivative(low_half(input)),
                                high_half(gradient) * derivative(high_half(input)));
            };
            chain(x.x, before.x), chain(x.y, before.y), chain(x.z, before.z), chain(x.w, before.w);
        }
        store_piece<alignment>(out.data + token * out.stride + column + piece * 8, x);
    }
}

template <int dim>
__global__ void __launch_bounds__(2 * dim, dim == 64 ? 2 : 1)
    backward_chunks_kernel(const __grid_constant__ CudaBackwardCall backward) {
    const CudaForwardCall& call = backward.forward;
    constexpr int tiles = dim / 64, threads = 128 * tiles;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ChunkShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const int chunk = blockIdx.x, sequence = blockIdx.y / call.heads, head = blockIdx.y % call.heads;
    const int64_t n = int64_t(blockIdx.y) * call.chunks + chunk;
    const int64_t start = int64_t(sequence) * call.time;
    const int first = chunk * chunk_tokens, tokens = min(chunk_tokens, call.time - first);
    const Place at{16 * warp + lane / 4, lane};
    const ChunkScalars& s = shared.scalars;

    if (threadIdx.x == 0) {
        const uint32_t first_loaded = shared_address(&shared.loaded[0]), loaded = shared_address(&shared.loaded[1]);
        constexpr int state_bytes = tiles * tiles * tile_bytes, value_bytes = tiles * tile_bytes;
        barrier_init(first_loaded, 1);
        barrier_init(loaded, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        barrier_arrive_expect(first_loaded, state_bytes + int(sizeof(ChunkScalars)));
        bulk_load(shared_address(&shared.scalars), call.saved.scalars + n, sizeof(ChunkScalars), first_loaded);
        bulk_load(shared_address(shared.S), call.saved.states + n * state_bytes, state_bytes, first_loaded);
        barrier_arrive_expect(loaded, state_bytes + 2 * value_bytes);
        bulk_load(shared_address(shared.dW), backward.error_gradients + n * value_bytes, value_bytes, loaded);
        bulk_load(shared_address(shared.dS), backward.state_gradients + n * state_bytes, state_bytes, loaded);
        bulk_load(shared_address(shared.dV), backward.value_gradients + n * value_bytes, value_bytes, loaded);
    }
    const auto load = [&](char* target, DeviceRows rows) {
        load_tiles<dim, threads>(shared_address(target), rows, start, head * dim, first, call.time, threadIdx.x);
    };
    load(shared.k[0], call.k);
    load(shared.v[0], call.v);
    copies_commit();
    load(shared.dO[0], backward.output_gradient);
    load(shared.q[0], call.q);
    copies_commit();
    uint32_t R[16];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint4 x = call.saved.inverse[n * 512 + i * 128 + thread];
        R[4 * i] = x.x, R[4 * i + 1] = x.y, R[4 * i + 2] = x.z, R[4 * i + 3] = x.w;
    }
    copies_wait<0>();
    publish_shared();
    __syncthreads();
    barrier_wait(shared_address(&shared.loaded[0]), 0);
    barrier_wait(shared_address(&shared.loaded[1]), 0);

    // W, in place of V, and V'
    const uint32_t my_v = shared_address(shared.v[group]);
    {
        float U[32];
        hold(U);
        products_begin();
#pragma unroll
        for (int i = 0; i < dim / 16; ++i)
            product<Lie::as_rows, Lie::as_columns>(U, shared_address(shared.k[i / 4]),
                                                   shared_address(shared.S[group][i / 4]), i % 4, i > 0);
        products_commit();
        float factor[2];
        Left Ag[4];
        float A[32];
#pragma unroll
        for (int r = 0; r < 2; ++r) {
            factor[r] = exp2_fast(s.log_decay[at.row(r)]) * s.k_factor[at.row(r)];
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float2 decay = decay_between(s, at.row(r), at.column(i));
                const __half2 pair = reinterpret_cast<const __half2&>(R[2 * i + r]);
                A[4 * i + 2 * r] = decay.x * __low2float(pair) * s.beta[at.column(i)];
                A[4 * i + 2 * r + 1] = decay.y * __high2float(pair) * s.beta[at.column(i) + 1];
            }
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) Ag[i] = left_operand(A, i);
        products_wait<0>();
        hold(U);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Left v = load_rows(my_v, i);
            Left w;
#pragma unroll
            for (int j = 0; j < 4; ++j)
                w.x[j] = pack(low_half(v.x[j]) - factor[j % 2] * U[8 * i + 2 * j],
                              high_half(v.x[j]) - factor[j % 2] * U[8 * i + 2 * j + 1]);
            store_rows(my_v, i, w);
        }
        publish_shared();
        named_barrier(1 + group, 128);
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(Ag[i]);
        hold(U);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(U, Ag[i], my_v, i, i > 0);
        products_commit();
        products_wait<0>();
        hold(U);
#pragma unroll
        for (int i = 0; i < 4; ++i) store_rows(shared_address(shared.values[group]), i, left_operand(U, i));
    }
    copies_wait<0>();
    publish_shared();
    __syncthreads();
    barrier_wait(shared_address(&shared.loaded[1]), 0);

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
        sum = sum_rows(sum_columns(sum));
        if (lane == 0) shared.state_sum[threadIdx.x / 32] = sum;

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
        dot_rows(other, shared_address(shared.k[group]), rows_u);
        if (lane % 4 == 0) {
#pragma unroll
            for (int r = 0; r < 2; ++r) {
                shared.gate_rows[group][at.row(r)] = rows_q[r] - rows_k[r] + rows_u[r];
                shared.key_rows[group][at.row(r)] = rows_k[r];
            }
        }
#pragma unroll
        for (int i = 0; i < 32; ++i) dK[i] += other[i];
    }
    if (group == 0) inverse_side<dim>(shared, R, at, warp);
    if (group == tiles - 1) query_side<dim>(shared, call.scale, at, warp);
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
        float state_sum = 0, keys = 0, dG[2], db[2];
#pragma unroll
        for (int i = 0; i < 4 * tiles; ++i) state_sum += shared.state_sum[i];
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            const int t = 2 * lane + j;
            dG[j] = shared.row_A[t] + shared.row_P[t];
            db[j] = shared.row_Z[t];
#pragma unroll
            for (int w = 0; w < 4; ++w) {
                dG[j] -= shared.column_A[w][t] + shared.column_P[w][t];
                db[j] += shared.column_b[w][t];
            }
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                dG[j] += shared.gate_rows[i][t];
                keys += shared.key_rows[i][t];
            }
        }
        keys = sum_rows(sum_columns(keys));
        if (lane == 31) dG[1] += keys + exp2_fast(s.log_decay[63]) * state_sum;
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
            backward.b.data[token * backward.b.stride + head] = __float2bfloat16_rn(db[j] * beta * (1.0F - beta));
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
            shared.along_q[group][at.row(r)] = along_q[r];
            shared.along_k[group][at.row(r)] = along_k[r];
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
                along_q[r] += shared.along_q[i][row];
                along_k[r] += shared.along_k[i][row];
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
        store_rows(my_v, i, x);
        store_rows(shared_address(shared.dV[group]), i, y);
    }
    named_barrier(1 + group, 128);
    const int column = head * dim + 64 * group;
    const auto store = [&](MutableDeviceRows out, DeviceRows raw, const char* tile) {
        if (backward.alignment == 16)
            store_gradient<16>(out, raw, backward.silu, tile, start + first, tokens, column, thread);
        else if (backward.alignment == 4)
            store_gradient<4>(out, raw, backward.silu, tile, start + first, tokens, column, thread);
        else
            store_gradient<2>(out, raw, backward.silu, tile, start + first, tokens, column, thread);
    };
    store(backward.q, backward.raw_q, shared.v[group]);
    store(backward.k, backward.raw_k, shared.dV[group]);
    store(backward.v, backward.raw_v, shared.dW[group]);
}

/// Gradients of A_log and dt_bias: one block a head, sums in a fixed order.
__global__ void sum_gates_kernel(const float* sums, float* A_log, float* dt_bias, int batch, int heads, int chunks) {
    __shared__ float parts[2][256];
    const int head = blockIdx.x;
    float x[2] = {};
    for (int i = threadIdx.x; i < batch * chunks; i += 256) {
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
    static const cudaError_t set =
        cudaFuncSetAttribute(backward_chunks_kernel<dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    (void)set;
    const CudaForwardCall& f = call.forward;
    backward_chunks_kernel<dim><<<dim3(f.chunks, f.sequences_heads), 2 * dim, bytes, stream>>>(call);
    sum_gates_kernel<<<f.heads, 256, 0, stream>>>(call.sums, call.A_log, call.dt_bias, f.sequences_heads / f.heads,
                                                  f.heads, f.chunks);
}

template void launch_backward_chunks<64>(const CudaBackwardCall&, cudaStream_t);
template void launch_backward_chunks<128>(const CudaBackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels
