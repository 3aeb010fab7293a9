// SPDX-License-Identifier: Apache-2.0
// What the chains of cuda_chain.cuh take of a chunk where the decay is one number a token: the tiles in shared memory,
// and the auxiliary warpgroup that loads them and works out Ag and Pg, ahead of the chain.
#pragma once

#include "kernels/gated_delta_rule/cuda_call.cuh"
#include "kernels/gated_delta_rule/cuda_chain.cuh"

namespace amalgam::kernels {

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

/// A chunk as the chain sees it.
template <int dim, int groups>
struct TokenDecayTiles {
    Loaded<dim, groups>& loaded;
    const Prepared& prepared;

    __device__ uint32_t read_keys() const { return shared_address(loaded.k); }
    __device__ uint32_t written_keys() const { return shared_address(loaded.k); }
    __device__ uint32_t queries() const { return shared_address(loaded.q); }
    __device__ uint32_t Ag() const { return shared_address(prepared.Ag); }
    __device__ uint32_t Pg() const { return shared_address(prepared.Pg); }
    __device__ float2 read_factor(int i) const { return of_columns(prepared.state_k, i); }
    __device__ float2 query_factor(int i) const { return of_columns(prepared.state_q, i); }
    __device__ float2 write_factor(int i) const { return of_columns(prepared.update, i); }
    __device__ void decay_state(float (&S)[dim / 64][32]) const {
        const float decay = exp2_fast(prepared.log_decay[0]);
#pragma unroll
        for (int t = 0; t < dim / 64; ++t) {
#pragma unroll
            for (int i = 0; i < 32; ++i) S[t][i] *= decay;
        }
    }
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
    __device__ TokenDecayTiles<dim, groups> tiles(int step) { return {loaded[step % stages], prepared[step % 2]}; }
};

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

/// The rule of cuda_chain.cuh.
struct TokenDecay {
    using ForwardCall = CudaForwardCall;
    using BackwardCall = CudaBackwardCall;
    static constexpr const char* name = "gated delta rule on CUDA";
    template <int dim>
    static constexpr bool own_staging = dim == 128;
    template <int dim, int groups, int stages>
    using Pipeline = kernels::Pipeline<dim, groups, stages>;

    template <int dim, int groups, int stages, bool packed>
    static __device__ void run_auxiliary(const CudaForwardCall& call, Pipeline<dim, groups, stages>& pipeline,
                                         const Schedule<packed>& schedule, DeviceRows rows, int first_value,
                                         bool save_q_factor, int thread) {
        kernels::run_auxiliary(call, pipeline, schedule, rows, first_value, save_q_factor, thread);
    }
};

}  // namespace amalgam::kernels
