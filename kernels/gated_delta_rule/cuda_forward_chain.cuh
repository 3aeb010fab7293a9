// SPDX-License-Identifier: Apache-2.0
// The chain of states. A block takes a sequence and head (or some of its columns of V: they are independent)
// through all chunks. Each state warpgroup keeps 64 columns of the state in registers as S^T, 64 x dim, and computes
// all of its results transposed, so that every result is the left operand of the next product without leaving the
// registers:
//     W^T = V^T - eg (S^T K^T),  V'^T = W^T Ag^T,  O^T = eg (S^T Q^T) + V'^T Pg^T,  S^T <- e^G_last S^T + (er V')^T K
// with Ag and Pg from the auxiliary warpgroup. This is how it reads where decays are one number a token, Ag = Gam R b
// and Pg = scale Gam Q K^T; q and k are normalised by factors per row that go into eg, er, Ag and Pg. Where every key
// channel has its own decay, eg and er are in the tiles instead: eg Q, eg K and er K in place of Q and K.
#pragma once

#include "kernels/gated_delta_rule/cuda_chain.cuh"

namespace amalgam::kernels {

template <class Rule, int dim, int groups, int stages>
struct ForwardShared {
    static constexpr bool own_staging = Rule::template own_staging<dim>;
    typename Rule::template Pipeline<dim, groups, stages> pipeline;
    alignas(1024) char state[own_staging ? groups : 1][own_staging ? dim / 64 : 1][own_staging ? tile_bytes : 1];
};

template <class Rule, int dim, int groups, int stages, bool packed>
__global__ void __launch_bounds__(128 * (groups + 1), dim == 64 ? 2 : 1)
    forward_kernel(const __grid_constant__ typename Rule::ForwardCall call) {
    constexpr int key_tiles = dim / 64;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ForwardShared<Rule, dim, groups, stages>*>(memory);
    auto& pipeline = shared.pipeline;
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, warp = thread / 32, lane = thread % 32;
    const int first_value = blockIdx.y * groups * 64;

    const Schedule<packed> schedule(call, false);
    if (threadIdx.x == 0) pipeline.initialize();
    __syncthreads();

    if (group == groups) {
        Registers<dim, groups>::decrease();
        Rule::run_auxiliary(call, pipeline, schedule, call.v, first_value,
                            call.saved.states != nullptr && blockIdx.y == 0, thread);
        return;
    }

    Registers<dim, groups>::increase();
    const int value = first_value + 64 * group;  // first of this group's columns of V
    float S[key_tiles][32];
    Left output[4];

    // Writes the output of a step by way of this warp's columns of V, in rows of 32 bytes, and releases its tiles.
    const auto finish = [&](int step) {
        const auto [chain, chunk, n] = schedule[step];
        char* tile = pipeline.tiles(step).loaded.v[group];
        __syncwarp();
#pragma unroll
        for (int i = 0; i < 4; ++i) store_columns(shared_address(tile), i, output[i]);
        __syncwarp();
        const auto [start, time] = schedule.sequence(call, chain);
        __nv_bfloat16* target = call.o.data + start * call.o.stride + int64_t(chain % call.heads) * dim + value;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = 16 * i + lane / 2, piece = 2 * warp + lane % 2, token = chunk * chunk_tokens + row;
            if (token < time)
                *reinterpret_cast<uint4*>(target + int64_t(token) * call.o.stride + piece * 8) =
                    *reinterpret_cast<const uint4*>(tile + tile_offset(row, piece));
        }
        if (lane == 0) bulk_stores_read();
        pipeline.arrive_done(step);
    };

    for (int step = 0; step < schedule.steps; ++step) {
        const auto [chain, chunk, n] = schedule[step];
        if (chunk == 0) load_state<dim>(S, call.initial_state, chain, value, thread);
        const auto tiles = pipeline.tiles(step);
        const uint32_t k = tiles.read_keys(), q = tiles.queries(), v = shared_address(tiles.loaded.v[group]);

        Left state[4 * key_tiles];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) state[i] = left_operand(S[i / 4], i % 4);
        pipeline.wait_full(step);

        float W[32], O[32];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) hold(state[i]);
        hold(W);
        hold(O);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(W, state[i], k + i / 4 * tile_bytes, i % 4, i > 0);
        products_commit();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(O, state[i], q + i / 4 * tile_bytes, i % 4, i > 0);
        products_commit();

        // States are saved by way of shared memory of their own, or of Q once that has been used.
        const auto save_state = [&](char(&staged)[key_tiles][tile_bytes]) {
            if (call.saved.states != nullptr)
                save_state_rows<key_tiles>(
                    state, staged, call.saved.states + (n * key_tiles + value / 64) * (key_tiles * tile_bytes), thread);
        };
        if constexpr (ForwardShared<Rule, dim, groups, stages>::own_staging) save_state(shared.state[group]);

        Left w[4];
        products_wait<1>();
        hold(W);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const Left vt = load_columns(v, i);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 f = tiles.read_factor(2 * i + j);
                float* x = &W[8 * i + 4 * j];
                x[0] = low_half(vt.x[2 * j]) - f.x * x[0];
                x[1] = high_half(vt.x[2 * j]) - f.y * x[1];
                x[2] = low_half(vt.x[2 * j + 1]) - f.x * x[2];
                x[3] = high_half(vt.x[2 * j + 1]) - f.y * x[3];
            }
            w[i] = left_operand(W, i);
        }
        float V[32];
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(w[i]);
        hold(V);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_columns>(V, w[i], tiles.Ag(), i, i > 0);
        products_commit();
        tiles.decay_state(S);
        products_wait<0>();
        hold(V);
        hold(O);
        if constexpr (!ForwardShared<Rule, dim, groups, stages>::own_staging) {
            if (call.saved.states != nullptr) named_barrier(state_barrier, 128);  // every warp has used Q
            save_state(tiles.loaded.q);
        }

        Left kept[4], update[4];
        const uint32_t written = tiles.written_keys();
#pragma unroll
        for (int i = 0; i < 4; ++i) kept[i] = left_operand(V, i);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 fu = tiles.write_factor(i);
            V[4 * i] *= fu.x, V[4 * i + 1] *= fu.y, V[4 * i + 2] *= fu.x, V[4 * i + 3] *= fu.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            update[i] = left_operand(V, i);
            hold(update[i]);
        }
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], update[i], written + t * tile_bytes, i);
        }
        products_commit();
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 fq = tiles.query_factor(i);
            O[4 * i] *= fq.x, O[4 * i + 1] *= fq.y, O[4 * i + 2] *= fq.x, O[4 * i + 3] *= fq.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(kept[i]);
        hold(O);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_columns>(O, kept[i], tiles.Pg(), i);
        products_commit();
        if (call.saved.states != nullptr)
            save_columns(kept, tiles.loaded.v[group], call.saved.values + (n * key_tiles + value / 64) * tile_bytes,
                         thread);
        products_wait<0>();
        hold(O);
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);

#pragma unroll
        for (int i = 0; i < 4; ++i) output[i] = left_operand(O, i);
        finish(step);
        if (chunk == schedule.chunks - 1 && call.final_state)
            store_state<dim>(S, call.final_state, chain, value, thread);
    }
    if (lane == 0) bulk_stores_complete();
    if (packed && schedule.steps == 0 && call.final_state) {
        load_state<dim>(S, call.initial_state, blockIdx.x, value, thread);
        store_state<dim>(S, call.final_state, blockIdx.x, value, thread);
    }
}

template <class Rule, int dim, int groups, int stages, bool packed>
void launch_forward_chain(const typename Rule::ForwardCall& call, int multiprocessors, cudaStream_t stream) {
    constexpr int bytes = sizeof(ForwardShared<Rule, dim, groups, stages>);
    static_assert(bytes <= (dim == 64 ? 115712 : 232448));
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(forward_kernel<Rule, dim, groups, stages, packed>, bytes, Rule::name);
    forward_kernel<Rule, dim, groups, stages, packed>
        <<<chain_grid(dim, groups, call, multiprocessors), 128 * (groups + 1), bytes, stream>>>(call);
}

template <class Rule, int dim, int groups, int stages>
void launch_forward_chain(const typename Rule::ForwardCall& call, int multiprocessors, cudaStream_t stream) {
    call.packed > 0 ? launch_forward_chain<Rule, dim, groups, stages, true>(call, multiprocessors, stream)
                    : launch_forward_chain<Rule, dim, groups, stages, false>(call, multiprocessors, stream);
}

}  // namespace amalgam::kernels
