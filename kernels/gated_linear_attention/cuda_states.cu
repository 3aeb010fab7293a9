// SPDX-License-Identifier: Apache-2.0
// The chain of states over the chunks, S <- exp(G_last) S + (exp(G_last - G) K)^T V, and its mirror image from the last
// chunk to the first, dS <- exp(G_last) dS + (scale exp(G) Q)^T dO. A block has 64 key channels of one chain.
#include "kernels/gated_linear_attention/cuda_call.cuh"

namespace amalgam::kernels::linear_attention {
namespace {

constexpr int stages = 3;
constexpr int blocks_at_once = 2;  ///< that a multiprocessor holds

/// What one direction of the chain reads and writes.
struct ChainCall {
    int time, heads, chunks;
    float scale, gate_factor;
    DeviceRows left, right, gate;
    const float* start;  ///< states or null
    char* tiles;         ///< a state before each step
    float* end;          ///< states or null
};

template <int dim>
struct ChainShared {
    static constexpr int tiles = dim / 64, parts = 4 * tiles;
    struct {
        char left[tile_bytes], gate[tile_bytes], right[tiles][tile_bytes];
    } stage[stages];
    char staged[tiles][1][tile_bytes];
    float decay[64];
};

/// Calls each(element of the fragment, index in a state) for pairs of neighbouring values.
template <int dim, class Each>
__device__ void for_state_pairs(int64_t chain, int key_tile, int value_tile, int thread, Each each) {
    const int key = 64 * key_tile + thread / 32 * 16 + thread % 32 / 4, value = 64 * value_tile + thread % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; i += 2) each(i, (chain * dim + key + i / 2 % 2 * 8) * dim + value + i / 4 * 8);
}

template <int dim, bool backward>
__global__ void __launch_bounds__(2 * dim, blocks_at_once) chain_kernel(const __grid_constant__ ChainCall call) {
    constexpr int tiles = dim / 64, threads = 128 * tiles, parts = ChainShared<dim>::parts;
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<ChainShared<dim>*>(memory);
    const int group = threadIdx.x / 128, thread = threadIdx.x % 128;
    const int64_t chain = blockIdx.x / tiles;
    const int key_tile = blockIdx.x % tiles;
    const int64_t start = chain / call.heads * call.time;
    const int head = static_cast<int>(chain % call.heads);
    const Column<parts> at(threadIdx.x);
    const Place place{thread / 32 * 16 + thread % 32 / 4, thread % 32};

    const auto chunk_of = [&](int step) { return backward ? call.chunks - 1 - step : step; };
    const auto load = [&](int step) {
        if (step < call.chunks) {
            auto& stage = shared.stage[step % stages];
            const int first = chunk_of(step) * chunk_tokens, key_column = head * dim + 64 * key_tile;
            load_tiles<64, threads>(shared_address(stage.left), call.left, start, key_column, first, call.time,
                                    threadIdx.x);
            load_tiles<64, threads>(shared_address(stage.gate), call.gate, start, key_column, first, call.time,
                                    threadIdx.x);
            load_tiles<dim, threads>(shared_address(stage.right), call.right, start, head * dim, first, call.time,
                                     threadIdx.x);
        }
        copies_commit();
    };

    float S[32];
    for_state_pairs<dim>(chain, key_tile, group, thread, [&](int i, int64_t index) {
        const float2 x = call.start ? *reinterpret_cast<const float2*>(call.start + index) : float2{0.0F, 0.0F};
        S[i] = x.x, S[i + 1] = x.y;
    });
    for (int step = 0; step < stages - 1; ++step) load(step);

    for (int step = 0; step < call.chunks; ++step) {
        auto& stage = shared.stage[step % stages];
        const int chunk = chunk_of(step), tokens = min(chunk_tokens, call.time - chunk * chunk_tokens);
        copies_wait<stages - 2>();
        __syncthreads();  // this step is loaded, and nobody reads the stage of the one before it any more
        load(step + stages - 1);

        Left state[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) state[i] = left_operand(S, i);
        save_state_rows<1>(
            state, shared.staged[group],
            call.tiles + ((chain * call.chunks + chunk) * tiles * tiles + key_tile * tiles + group) * tile_bytes,
            thread);

        float2 G[Column<parts>::rows];
        const float2 sum = cumulate<parts>(
            G, [&](int i) { return at.in(stage.gate, i); }, at, tokens, call.gate_factor);
        // A part's sums take the place of its gates, which only its warp reads: so two blocks fit a multiprocessor.
        const auto of_part = [&](int p) -> float2& {
            return reinterpret_cast<float2*>(stage.gate + p * Column<parts>::rows * 128)[at.pair];
        };
        __syncwarp();
        of_part(at.part) = sum;
        __syncthreads();
        const float2 before = sum_parts<parts>(of_part, 0, at.part), last = sum_parts<parts>(of_part, 0, parts);
#pragma unroll
        for (int i = 0; i < Column<parts>::rows; ++i) {
            const float2 g = {G[i].x + before.x, G[i].y + before.y};
            uint32_t& x = at.in(stage.left, i);
            if constexpr (backward)
                x = pack(low_half(x) * call.scale * exp2_fast(g.x), high_half(x) * call.scale * exp2_fast(g.y));
            else
                x = pack(low_half(x) * exp2_fast(last.x - g.x), high_half(x) * exp2_fast(last.y - g.y));
        }
        if (at.part == 0)
            shared.decay[2 * at.pair] = exp2_fast(last.x), shared.decay[2 * at.pair + 1] = exp2_fast(last.y);
        publish_shared();
        __syncthreads();

        const float decay[2] = {shared.decay[place.row(0)], shared.decay[place.row(1)]};
#pragma unroll
        for (int i = 0; i < 32; ++i) S[i] *= decay[i / 2 % 2];
        hold(S);
        products_begin();
#pragma unroll
        for (int i = 0; i < 4; ++i)
            product<Lie::as_columns, Lie::as_rows>(S, shared_address(stage.left), shared_address(stage.right[group]),
                                                   i);
        products_commit();
        products_wait<0>();
        hold(S);
    }
    if (thread % 32 == 0) bulk_stores_complete();
    if (call.end) {
        for_state_pairs<dim>(chain, key_tile, group, thread, [&](int i, int64_t index) {
            *reinterpret_cast<float2*>(call.end + index) = make_float2(S[i], S[i + 1]);
        });
    }
}

template <int dim, bool backward>
void launch(const ChainCall& call, int chains, cudaStream_t stream) {
    constexpr int bytes = sizeof(ChainShared<dim>);
    static_assert(blocks_at_once * (bytes + 1024) <= 233472);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(chain_kernel<dim, backward>, bytes, "gated linear attention on CUDA");
    chain_kernel<dim, backward><<<chains*(dim / 64), 2 * dim, bytes, stream>>>(call);
}

}  // namespace

template <int dim>
void launch_states(const ForwardCall& call, cudaStream_t stream) {
    launch<dim, false>({call.time, call.heads, call.chunks, call.scale, call.gate_factor, call.k, call.v, call.gate,
                        call.initial_state, call.states, call.final_state},
                       call.chains, stream);
}

template <int dim>
void launch_state_gradients(const BackwardCall& call, cudaStream_t stream) {
    const ForwardCall& f = call.forward;
    launch<dim, true>({f.time, f.heads, f.chunks, f.scale, f.gate_factor, f.q, call.output_gradient, f.gate,
                       call.final_state_gradient, call.state_gradients, call.initial_state},
                      f.chains, stream);
}

template void launch_states<64>(const ForwardCall&, cudaStream_t);
template void launch_states<128>(const ForwardCall&, cudaStream_t);
template void launch_state_gradients<64>(const BackwardCall&, cudaStream_t);
template void launch_state_gradients<128>(const BackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::linear_attention
