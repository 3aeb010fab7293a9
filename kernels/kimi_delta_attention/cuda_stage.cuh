// SPDX-License-Identifier: Apache-2.0
// What the chains of gated_delta_rule/cuda_chain.cuh take of a chunk where every key channel has its own decay: tiles
// that the prepare kernel has made, brought by the copy engine. The auxiliary warpgroup only starts the copies.
#pragma once

#include "kernels/gated_delta_rule/cuda_chain.cuh"
#include "kernels/kimi_delta_attention/cuda_call.cuh"

namespace amalgam::kernels::kimi_delta {

/// A chunk; v is V or the gradient of O. The rest as in SavedChunks. Aligned as its tiles, in every stage.
template <int dim, int groups>
struct alignas(1024) Loaded {
    char q[dim / 64][tile_bytes], read_k[dim / 64][tile_bytes], write_k[dim / 64][tile_bytes];
    char Ag[tile_bytes], Pg[tile_bytes];
    char v[groups][tile_bytes];
    float decay[dim];
};

/// A chunk as the chain sees it: factors per token are in the tiles.
template <int dim, int groups>
struct ChannelDecayTiles {
    Loaded<dim, groups>& loaded;

    __device__ uint32_t read_keys() const { return shared_address(loaded.read_k); }
    __device__ uint32_t written_keys() const { return shared_address(loaded.write_k); }
    __device__ uint32_t queries() const { return shared_address(loaded.q); }
    __device__ uint32_t Ag() const { return shared_address(loaded.Ag); }
    __device__ uint32_t Pg() const { return shared_address(loaded.Pg); }
    __device__ static float2 read_factor(int) { return {1.0F, 1.0F}; }
    __device__ static float2 query_factor(int) { return {1.0F, 1.0F}; }
    __device__ static float2 write_factor(int) { return {1.0F, 1.0F}; }
    __device__ void decay_state(float (&S)[dim / 64][32]) const {
#pragma unroll
        for (int t = 0; t < dim / 64; ++t) {
#pragma unroll
            for (int i = 0; i < 8; ++i) {
                const float2 f = of_columns(loaded.decay + 64 * t, i);
                S[t][4 * i] *= f.x, S[t][4 * i + 1] *= f.y, S[t][4 * i + 2] *= f.x, S[t][4 * i + 3] *= f.y;
            }
        }
    }
};

/// Chunks are taken in the order of `step`; `stages` are loaded.
template <int dim, int groups, int stages>
struct Pipeline {
    Loaded<dim, groups> loaded[stages];
    uint64_t full[stages];  ///< a step is loaded
    uint64_t done[stages];  ///< the state warpgroups are done with it

    __device__ void initialize() {
        for (int i = 0; i < stages; ++i) {
            barrier_init(shared_address(&full[i]), 128);
            barrier_init(shared_address(&done[i]), 128 * groups);
        }
        publish_barriers();
    }
    __device__ void wait_full(int step) { barrier_wait(shared_address(&full[step % stages]), step / stages & 1); }
    __device__ void wait_done(int step) { barrier_wait(shared_address(&done[step % stages]), step / stages & 1); }
    __device__ void arrive_done(int step) { barrier_arrive(shared_address(&done[step % stages])); }
    __device__ ChannelDecayTiles<dim, groups> tiles(int step) { return {loaded[step % stages]}; }
};

/// The rule of cuda_chain.cuh.
struct ChannelDecay {
    using ForwardCall = kimi_delta::ForwardCall;
    using BackwardCall = kimi_delta::BackwardCall;
    static constexpr const char* name = "Kimi Delta Attention on CUDA";
    template <int dim>
    static constexpr bool own_staging = true;
    template <int dim, int groups, int stages>
    using Pipeline = kimi_delta::Pipeline<dim, groups, stages>;

    template <int dim, int groups, int stages, bool packed>
    static __device__ void run_auxiliary(const ForwardCall& call, Pipeline<dim, groups, stages>& pipeline,
                                         const Schedule<packed>& schedule, DeviceRows rows, int first_value, bool,
                                         int thread) {
        constexpr int operand_bytes = 3 * (dim / 64) * tile_bytes, pair_bytes = 2 * tile_bytes;
        for (int step = 0; step < schedule.steps; ++step) {
            if (step >= stages) pipeline.wait_done(step - stages);
            auto& loaded = pipeline.loaded[step % stages];
            const uint32_t full = shared_address(&pipeline.full[step % stages]);
            const auto [chain, chunk, n] = schedule[step];
            if (thread == 0) {
                barrier_expect(full, operand_bytes + pair_bytes + int(sizeof(loaded.decay)));
                bulk_load(shared_address(loaded.q), call.saved.operands + n * operand_bytes, operand_bytes, full);
                bulk_load(shared_address(loaded.Ag), call.saved.pairs + n * pair_bytes, pair_bytes, full);
                bulk_load(shared_address(loaded.decay), call.saved.decays + n * dim, sizeof(loaded.decay), full);
            }
            const auto [start, time] = schedule.sequence(call, chain);
            load_tiles<groups * 64, 128>(shared_address(loaded.v), rows, start, chain % call.heads * dim + first_value,
                                         chunk * chunk_tokens, time, thread);
            barrier_arrive_after_copies(full);
        }
    }
};

}  // namespace amalgam::kernels::kimi_delta
