// SPDX-License-Identifier: Apache-2.0
// What the two chains of states, forward and backward, share: the tiles of a chunk in shared memory, and the auxiliary
// warpgroup's work on them. One block is one sequence and head, blockIdx.x.
#pragma once

#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {

using namespace hopper;

template <int dim, int groups>
struct Stage {
    char k[dim / 64][tile_bytes], q[dim / 64][tile_bytes], v[groups][tile_bytes];
    char Ag[tile_bytes], Pg[tile_bytes];
};

/// Factors per token of a stage.
struct Factors {
    ChunkScalars scalars;
    float state_k[64];  ///< eg / |k|
    float state_q[64];  ///< scale eg / |q|
    float update[64];   ///< er / |k|
};

/// The registers of a block, 128 or 168 a thread at its start, are all there is to give: 88 + 168 = 2 x 128 and
/// 88 + 2 x 208 = 3 x 168. Registers move from the auxiliary to the state warpgroups where a multiprocessor is full:
/// two blocks of 256 threads, or one of 384.
template <int dim, int groups>
struct Registers {
    static __device__ void decrease() {
        if constexpr (dim == 64) registers_decrease<88>();
        if constexpr (groups == 2) registers_decrease<88>();
    }
    static __device__ void increase() {
        if constexpr (dim == 64) registers_increase<168>();
        if constexpr (groups == 2) registers_increase<208>();
    }
};

constexpr int auxiliary_barrier = 1, state_barrier = 2;

/// Begins to load a chunk; `rows` is V or the gradient of O. Chunks that do not exist are passed over.
template <int dim, int groups>
__device__ inline void load_stage(const CudaForwardCall& call, DeviceRows rows, Stage<dim, groups>& stage,
                                  Factors& factors, int chunk, int first_value, int thread) {
    if (chunk >= 0 && chunk < call.chunks) {
        const int head = blockIdx.x % call.heads;
        const int64_t start = int64_t(blockIdx.x / call.heads) * call.time;
        const int first = chunk * chunk_tokens;
        const int64_t n = int64_t(blockIdx.x) * call.chunks + chunk;
        load_tiles<dim, 128>(shared_address(stage.k), call.k, start, head * dim, first, call.time, thread);
        load_tiles<dim, 128>(shared_address(stage.q), call.q, start, head * dim, first, call.time, thread);
        load_tiles<groups * 64, 128>(shared_address(stage.v), rows, start, head * dim + first_value, first, call.time,
                                     thread);
        // Each thread reads back its own part of R, before anything else is written to Ag.
        const uint4* inverse = call.saved.inverse + n * 512;
#pragma unroll
        for (int i = 0; i < 4; ++i)
            copy_async(shared_address(stage.Ag) + (i * 128 + thread) * 16, inverse + i * 128 + thread, true);
        if (thread < 48)
            copy_async(shared_address(&factors.scalars) + thread * 16,
                       reinterpret_cast<const char*>(call.saved.scalars + n) + thread * 16, true);
    }
    copies_commit();
}

/// Ag and Pg of a chunk from its loaded tiles.
template <int dim, int groups>
__device__ inline void prepare_stage(const CudaForwardCall& call, Stage<dim, groups>& stage, Factors& factors,
                                     int chunk, bool save_q_factor, int thread) {
    const int warp = thread / 32, lane = thread % 32;
    uint32_t R[16];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint4 x = *reinterpret_cast<const uint4*>(stage.Ag + (i * 128 + thread) * 16);
        R[4 * i] = x.x, R[4 * i + 1] = x.y, R[4 * i + 2] = x.z, R[4 * i + 3] = x.w;
    }
    publish_shared();
    named_barrier(auxiliary_barrier, 128);

    float d[32];
    hold(d);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, shared_address(stage.q[i / 4]), shared_address(stage.k[i / 4]), i % 4,
                                               i > 0);
    products_commit();
    const float square = row_square<dim>(stage.q[0], thread);
    if (thread % 2 == 0) {
        const int row = thread / 2;
        ChunkScalars& s = factors.scalars;
        const float q_factor = call.l2_normalize ? rsqrtf(square + normalize_epsilon) : 1.0F;
        const float eg = exp2_fast(s.log_decay[row]), er = exp2_fast(s.log_decay[63] - s.log_decay[row]);
        s.q_factor[row] = q_factor;
        factors.state_k[row] = eg * s.k_factor[row];
        factors.state_q[row] = call.scale * eg * q_factor;
        factors.update[row] = er * s.k_factor[row];
        if (save_q_factor) call.saved.scalars[int64_t(blockIdx.x) * call.chunks + chunk].q_factor[row] = q_factor;
    }
    named_barrier(auxiliary_barrier, 128);

    const ChunkScalars& s = factors.scalars;
    const int top = 16 * warp + lane / 4;
    const float G[2] = {s.log_decay[top], s.log_decay[top + 8]};
    const float q_factor[2] = {call.scale * s.q_factor[top], call.scale * s.q_factor[top + 8]};
    products_wait<0>();
    hold(d);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        Left A, P;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int column = 16 * i + j / 2 * 8 + lane % 4 * 2, r = j % 2, row = top + 8 * r;
            const float2 Gj = *reinterpret_cast<const float2*>(&s.log_decay[column]);
            const float2 bj = *reinterpret_cast<const float2*>(&s.beta[column]);
            const float2 kj = *reinterpret_cast<const float2*>(&s.k_factor[column]);
            const __half2 inverse = reinterpret_cast<const __half2&>(R[4 * i + j]);
            const float left = column <= row ? exp2_fast(G[r] - Gj.x) : 0.0F;
            const float right = column + 1 <= row ? exp2_fast(G[r] - Gj.y) : 0.0F;
            A.x[j] = pack(left * bj.x * __low2float(inverse), right * bj.y * __high2float(inverse));
            P.x[j] =
                pack(left * kj.x * q_factor[r] * d[8 * i + 2 * j], right * kj.y * q_factor[r] * d[8 * i + 2 * j + 1]);
        }
        store_rows(shared_address(stage.Ag), i, A);
        store_rows(shared_address(stage.Pg), i, P);
    }
    publish_shared();
}

/// [64 tokens] factors as this thread's columns need them.
#define AMALGAM_FACTOR(values, i) (*reinterpret_cast<const float2*>(&(values)[8 * (i) + lane % 4 * 2]))

}  // namespace amalgam::kernels
