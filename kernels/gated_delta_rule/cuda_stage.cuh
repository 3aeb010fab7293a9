// SPDX-License-Identifier: Apache-2.0
// What the two chains of states, forward and backward, share: the tiles of a chunk in shared memory, and the auxiliary
// warpgroup that loads them and works out Ag and Pg, ahead of the chain. A block takes the chains (a sequence and head
// each) blockIdx.x, blockIdx.x + gridDim.x, ... one after the other; the pipeline does not stop between them.
#pragma once

#include "kernels/cuda/fragments.cuh"
#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {

using namespace hopper;

/// What is loaded of a chunk; v is V or the gradient of O.
template <int dim, int groups>
struct Loaded {
    char k[dim / 64][tile_bytes], q[dim / 64][tile_bytes], v[groups][tile_bytes];
    ChunkScalars scalars;
};

/// What the auxiliary warpgroup makes of it.
struct Prepared {
    char Ag[tile_bytes], Pg[tile_bytes];
    float state_k[64];    ///< eg / |k|
    float state_q[64];    ///< scale eg / |q|
    float update[64];     ///< er / |k|
    float log_decay[64];  ///< [0]: of the whole chunk, times log2(e)
};

/// Chunks are taken in the order of `step`; two are prepared at most, `stages` loaded.
template <int dim, int groups, int stages>
struct Pipeline {
    Loaded<dim, groups> loaded[stages];
    Prepared prepared[2];
    uint64_t full[2];       ///< a step is prepared
    uint64_t done[stages];  ///< the state warpgroups are done with a step

    __device__ void initialize() {
        for (int i = 0; i < 2; ++i) barrier_init(shared_address(&full[i]), 128);
        for (int i = 0; i < stages; ++i) barrier_init(shared_address(&done[i]), 128 * groups);
    }
    __device__ void wait_full(int step) { barrier_wait(shared_address(&full[step % 2]), step / 2 & 1); }
    __device__ void arrive_full(int step) { barrier_arrive(shared_address(&full[step % 2])); }
    __device__ void wait_done(int step) { barrier_wait(shared_address(&done[step % stages]), step / stages & 1); }
    __device__ void arrive_done(int step) { barrier_arrive(shared_address(&done[step % stages])); }
};

/// What a step of this block is: a chunk of a chain.
struct Step {
    int chain, chunk;
    int64_t n;  ///< tile index
};

/// Steps of this block. Chunks are taken backwards where `backwards`. Chains of packed sequences have unequal lengths:
/// each has a block of its own.
template <bool packed>
struct Schedule;

template <>
struct Schedule<false> {
    int chunks, steps;
    bool backwards;
    __device__ Schedule(const CudaForwardCall& call, bool backwards) : chunks(call.chunks), backwards(backwards) {
        const int chains = (call.chains - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
                           static_cast<int>(gridDim.x);
        steps = chains * chunks;
    }
    __device__ Step operator[](int step) const {
        const int chain = blockIdx.x + step / chunks * gridDim.x, at = step % chunks;
        const int chunk = backwards ? chunks - 1 - at : at;
        return {chain, chunk, int64_t(chain) * chunks + chunk};
    }
    __device__ SequencePlace sequence(const CudaForwardCall& call, int chain) const {
        return {int64_t(chain / call.heads) * call.time, call.time};
    }
};

template <>
struct Schedule<true> {
    int chunks, steps;
    bool backwards;
    int64_t first;  ///< tile index of the chain's first chunk
    SequencePlace place;
    __device__ Schedule(const CudaForwardCall& call, bool backwards) : backwards(backwards) {
        const int sequence = static_cast<int>(blockIdx.x) / call.heads,
                  head = static_cast<int>(blockIdx.x) % call.heads;
        place = packed_sequence(call, sequence);
        steps = chunks = (place.time + chunk_tokens - 1) / chunk_tokens;
        first = int64_t(head) * call.chunks + packed_first_slot(call, sequence);
    }
    __device__ Step operator[](int step) const {
        const int chunk = backwards ? chunks - 1 - step : step;
        return {static_cast<int>(blockIdx.x), chunk, first + chunk};
    }
    __device__ SequencePlace sequence(const CudaForwardCall&, int) const { return place; }
};

/// The registers of a block, 128 or 168 a thread at its start, are all there is to give: 88 + 168 = 2 x 128 and
/// 88 + 2 x 208 = 3 x 168. Registers move from the auxiliary to the state warpgroups where a multiprocessor is full:
/// two blocks of 256 threads, or one of 384.
template <int dim, int groups>
struct Registers {
    static __device__ void decrease() {
        if constexpr (dim == 64 || groups == 2) registers_decrease<88>();
    }
    static __device__ void increase() {
        if constexpr (dim == 64) registers_increase<168>();
        if constexpr (groups == 2) registers_increase<208>();
    }
};

constexpr int auxiliary_barrier = 1, state_barrier = 2;

/// This thread's part of the inverse of a chunk.
__device__ inline void load_inverse(uint32_t (&R)[16], const uint4* inverse, int64_t n, int thread) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint4 x = inverse[n * 512 + i * 128 + thread];
        R[4 * i] = x.x, R[4 * i + 1] = x.y, R[4 * i + 2] = x.z, R[4 * i + 3] = x.w;
    }
}

/// Begins to load the chunk of a step; steps that do not exist are passed over.
template <int dim, int groups, bool packed>
__device__ inline void load_chunk(const CudaForwardCall& call, DeviceRows rows, Loaded<dim, groups>& loaded,
                                  const Schedule<packed>& schedule, int step, int first_value, int thread) {
    if (step < schedule.steps) {
        const auto [chain, chunk, n] = schedule[step];
        const int head = chain % call.heads;
        const auto [start, time] = schedule.sequence(call, chain);
        const int first = chunk * chunk_tokens;
        load_tiles<dim, 128>(shared_address(loaded.k), call.k, start, head * dim, first, time, thread);
        load_tiles<dim, 128>(shared_address(loaded.q), call.q, start, head * dim, first, time, thread);
        load_tiles<groups * 64, 128>(shared_address(loaded.v), rows, start, head * dim + first_value, first, time,
                                     thread);
        if (thread < 48)
            copy_async(shared_address(&loaded.scalars) + thread * 16,
                       reinterpret_cast<const char*>(call.saved.scalars + n) + thread * 16, true);
    }
    copies_commit();
}

/// Ag and Pg of a loaded chunk.
template <int dim, int groups>
__device__ inline void prepare_chunk(const CudaForwardCall& call, Loaded<dim, groups>& loaded, Prepared& prepared,
                                     const uint32_t (&R)[16], int64_t n, bool save_q_factor, int thread) {
    const int warp = thread / 32, lane = thread % 32;
    publish_shared();
    named_barrier(auxiliary_barrier, 128);

    float d[32];
    hold(d);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, shared_address(loaded.q[i / 4]), shared_address(loaded.k[i / 4]),
                                               i % 4, i > 0);
    products_commit();
    const float square = row_square<dim>(loaded.q[0], thread);
    ChunkScalars& s = loaded.scalars;
    if (thread % 2 == 0) {
        const int row = thread / 2;
        const float q_factor = call.l2_normalize ? rsqrtf(square + normalize_epsilon) : 1.0F;
        const float last = s.log_decay[63], eg = exp2_fast(s.log_decay[row]), er = exp2_fast(last - s.log_decay[row]);
        s.q_factor[row] = q_factor;
        prepared.state_k[row] = eg * s.k_factor[row];
        prepared.state_q[row] = call.scale * eg * q_factor;
        prepared.update[row] = er * s.k_factor[row];
        prepared.log_decay[row] = last;
        if (save_q_factor) call.saved.scalars[n].q_factor[row] = q_factor;
    }
    named_barrier(auxiliary_barrier, 128);

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
        store_rows(shared_address(prepared.Ag), i, A);
        store_rows(shared_address(prepared.Pg), i, P);
    }
    publish_shared();
}

template <int dim, int groups, int stages, bool packed>
__device__ inline void run_auxiliary(const CudaForwardCall& call, Pipeline<dim, groups, stages>& pipeline,
                                     const Schedule<packed>& schedule, DeviceRows rows, int first_value,
                                     bool save_q_factor, int thread) {
    const auto load = [&](int step) {
        load_chunk(call, rows, pipeline.loaded[step % stages], schedule, step, first_value, thread);
    };
    if (schedule.steps == 0) return;
    uint32_t R[16];
    load_inverse(R, call.saved.inverse, schedule[0].n, thread);
    for (int step = 0; step < stages - 1; ++step) load(step);
    for (int step = 0; step < schedule.steps; ++step) {
        copies_wait<stages - 2>();
        prepare_chunk(call, pipeline.loaded[step % stages], pipeline.prepared[step % 2], R, schedule[step].n,
                      save_q_factor, thread);
        pipeline.arrive_full(step);
        if (step + 1 < schedule.steps) load_inverse(R, call.saved.inverse, schedule[step + 1].n, thread);
        if (step >= 1) pipeline.wait_done(step - 1);
        load(step + stages - 1);
    }
}

/// [64 tokens] factors as this thread's columns need them.
#define AMALGAM_FACTOR(values, i) (*reinterpret_cast<const float2*>(&(values)[8 * (i) + lane % 4 * 2]))

/// A state warpgroup's state, transposed: S[t][i] is the i-th element of a fragment with the columns of V as rows and
/// keys 64 t .. as columns. `state` [dim][dim] fp32, or null for zeros; `value` is the first column of V.
template <int dim>
__device__ inline void load_state(float (&S)[dim / 64][32], const float* state, int chain, int value, int thread) {
    const int64_t base = int64_t(chain) * dim * dim + value + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int t = 0; t < dim / 64; ++t) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int key = 64 * t + i / 4 * 8 + thread % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
            S[t][i] = state ? state[base + int64_t(key) * dim + row] : 0.0F;
        }
    }
}
template <int dim>
__device__ inline void store_state(const float (&S)[dim / 64][32], float* state, int chain, int value, int thread) {
    const int64_t base = int64_t(chain) * dim * dim + value + thread / 32 * 16 + thread % 32 / 4;
#pragma unroll
    for (int t = 0; t < dim / 64; ++t) {
#pragma unroll
        for (int i = 0; i < 32; ++i) {
            const int key = 64 * t + i / 4 * 8 + thread % 4 * 2 + i % 2, row = i / 2 % 2 * 8;
            state[base + int64_t(key) * dim + row] = S[t][i];
        }
    }
}

/// Writes this warp's 16 columns of a tile to the same places of a tile in device memory, by way of `staged`, which
/// holds nothing else of use in these columns.
__device__ inline void save_columns(const Left (&x)[4], char* staged, char* target, int thread) {
    const int warp = thread / 32, lane = thread % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) store_columns(shared_address(staged), i, x[i]);
    __syncwarp();
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint32_t at = tile_offset(16 * i + lane / 2, 2 * warp + lane % 2);
        *reinterpret_cast<uint4*>(target + at) = *reinterpret_cast<const uint4*>(staged + at);
    }
}

/// Few chains of 128 columns: half of the columns a block, so that more multiprocessors have work.
inline bool halves_values(const CudaForwardCall& call, int multiprocessors) {
    return call.chains * 4 <= multiprocessors * 3;
}

/// Blocks for all chains, at most as many as run at once unless chains have blocks of their own.
inline dim3 chain_grid(int dim, int groups, const CudaForwardCall& call, int multiprocessors) {
    const int parts = dim / 64 / groups, at_once = multiprocessors * (dim == 64 ? 2 : 1) / parts;
    return dim3(call.packed > 0 || call.chains < at_once ? call.chains : at_once, parts);
}

}  // namespace amalgam::kernels
