// SPDX-License-Identifier: Apache-2.0
// The chain of state gradients: the mirror image of cuda_forward_chain.cuh, from the last chunk to the first. With dS
// the gradient of the state at the chunk's end, in registers as dS^T:
//     dV'^T = dO^T Pg + er (dS^T K^T),  dW^T = dV'^T Ag,
//     dS^T <- e^G_last dS^T + (scale eg dO)^T Q - (eg dW)^T K
#pragma once

#include "kernels/gated_delta_rule/cuda_chain.cuh"

namespace amalgam::kernels {

template <class Rule, int dim, int groups, int stages>
struct BackwardShared {
    typename Rule::template Pipeline<dim, groups, stages> pipeline;
    alignas(1024) char state[groups][dim / 64][tile_bytes];
};

template <class Rule, int dim, int groups, int stages, bool packed>
__global__ void __launch_bounds__(128 * (groups + 1), dim == 64 ? 2 : 1)
    backward_states_kernel(const __grid_constant__ typename Rule::BackwardCall backward) {
    const auto& call = backward.forward;
    constexpr int key_tiles = dim / 64;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<BackwardShared<Rule, dim, groups, stages>*>(memory);
    auto& pipeline = shared.pipeline;
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128, lane = thread % 32;
    const int first_value = blockIdx.y * groups * 64;

    const Schedule<packed> schedule(call, true);
    if (threadIdx.x == 0) pipeline.initialize();
    __syncthreads();

    if (group == groups) {
        Registers<dim, groups>::decrease();
        Rule::run_auxiliary(call, pipeline, schedule, backward.output_gradient, first_value, false, thread);
        return;
    }

    Registers<dim, groups>::increase();
    const int value = first_value + 64 * group;  // first of this group's columns of V
    float S[key_tiles][32];

    for (int step = 0; step < schedule.steps; ++step) {
        const auto [chain, chunk, tile] = schedule[step];
        if (chunk == schedule.chunks - 1) load_state<dim>(S, backward.final_state_gradient, chain, value, thread);
        const auto tiles = pipeline.tiles(step);
        const int64_t n = tile * key_tiles + value / 64;  // of value tiles
        const uint32_t k = tiles.written_keys(), q = tiles.queries(), dO = shared_address(tiles.loaded.v[group]);

        Left state[4 * key_tiles], dOt[4];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) state[i] = left_operand(S[i / 4], i % 4);
        pipeline.wait_full(step);
#pragma unroll
        for (int i = 0; i < 4; ++i) dOt[i] = load_columns(dO, i);

        float T[32], X[32];
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i) hold(state[i]);
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(dOt[i]);
        hold(T);
        hold(X);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4 * key_tiles; ++i)
            product<Lie::as_columns>(T, state[i], k + i / 4 * tile_bytes, i % 4, i > 0);
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(X, dOt[i], tiles.Pg(), i, i > 0);
        products_commit();

        save_state_rows<key_tiles>(state, shared.state[group], backward.state_gradients + n * (key_tiles * tile_bytes),
                                   thread);

        products_wait<0>();
        hold(T);
        hold(X);
        Left value_gradient[4];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 f = tiles.write_factor(i);
            X[4 * i] += f.x * T[4 * i], X[4 * i + 1] += f.y * T[4 * i + 1];
            X[4 * i + 2] += f.x * T[4 * i + 2], X[4 * i + 3] += f.y * T[4 * i + 3];
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) value_gradient[i] = left_operand(X, i);
        float W[32];
#pragma unroll
        for (int i = 0; i < 4; ++i) hold(value_gradient[i]);
        hold(W);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i) product<Lie::as_rows>(W, value_gradient[i], tiles.Ag(), i, i > 0);
        products_commit();

        tiles.decay_state(S);
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float2 f = tiles.query_factor(2 * i + j);
#pragma unroll
                for (int r = 0; r < 2; ++r) {
                    uint32_t& x = dOt[i].x[2 * j + r];
                    x = pack(low_half(x) * f.x, high_half(x) * f.y);
                }
            }
            hold(dOt[i]);
        }
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], dOt[i], q + t * tile_bytes, i);
        }
        products_commit();
        products_wait<1>();
        hold(W);
        Left error_gradient[4], error[4];
        const uint32_t read = tiles.read_keys();
#pragma unroll
        for (int i = 0; i < 4; ++i) error_gradient[i] = left_operand(W, i);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const float2 f = tiles.read_factor(i);
            W[4 * i] *= -f.x, W[4 * i + 1] *= -f.y, W[4 * i + 2] *= -f.x, W[4 * i + 3] *= -f.y;
        }
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            error[i] = left_operand(W, i);
            hold(error[i]);
        }
        products_begin();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) {
#pragma unroll
            for (int i = 0; i < 4; ++i) product<Lie::as_rows>(S[t], error[i], read + t * tile_bytes, i);
        }
        products_commit();
        save_columns(error_gradient, tiles.loaded.v[group], backward.error_gradients + n * tile_bytes, thread);
        products_wait<0>();
#pragma unroll
        for (int t = 0; t < key_tiles; ++t) hold(S[t]);
        pipeline.arrive_done(step);
        if (chunk == 0 && backward.initial_state) store_state<dim>(S, backward.initial_state, chain, value, thread);
    }
    if (lane == 0) bulk_stores_complete();
    if (packed && schedule.steps == 0 && backward.initial_state) {
        load_state<dim>(S, backward.final_state_gradient, blockIdx.x, value, thread);
        store_state<dim>(S, backward.initial_state, blockIdx.x, value, thread);
    }
}

template <class Rule, int dim, int groups, int stages, bool packed>
void launch_backward_chain(const typename Rule::BackwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(BackwardShared<Rule, dim, groups, stages>);
    static_assert(bytes <= (dim == 64 ? 115712 : 232448));
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(backward_states_kernel<Rule, dim, groups, stages, packed>, bytes, Rule::name);
    backward_states_kernel<Rule, dim, groups, stages, packed>
        <<<chain_grid(dim, groups, call.forward, call.multiprocessors), 128 * (groups + 1), bytes, stream>>>(call);
}

template <class Rule, int dim, int groups, int stages>
void launch_backward_chain(const typename Rule::BackwardCall& call, cudaStream_t stream) {
    call.forward.packed > 0 ? launch_backward_chain<Rule, dim, groups, stages, true>(call, stream)
                            : launch_backward_chain<Rule, dim, groups, stages, false>(call, stream);
}

}  // namespace amalgam::kernels
