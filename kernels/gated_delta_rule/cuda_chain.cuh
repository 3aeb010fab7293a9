// SPDX-License-Identifier: Apache-2.0
// What the chains of states of the delta rules share, forward and backward. A block takes the chains (a sequence and
// head each) blockIdx.x, blockIdx.x + gridDim.x, ... one after the other; the pipeline does not stop between them. An
// auxiliary warpgroup brings the tiles of a chunk, ahead of the chain.
//
// Which rule it is says a `Rule`, with the decay of its states:
//     Rule::Call, and Rule::forward(call) of what a backward kernel is passed;
//     Rule::Pipeline<dim, groups, stages>: tiles in shared memory, wait_full, arrive_done and, of a step, `tiles`;
//     Rule::own_staging<dim>: whether states are saved by way of shared memory of their own;
//     Rule::run_auxiliary.
// `tiles` holds what the products take of a chunk, and its factors per token, which the functions `*_factor` give for
// the tokens of column pair i of a fragment.
#pragma once

#include "kernels/cuda/fragments.cuh"
#include "kernels/gated_delta_rule/cuda_chunks.cuh"

namespace amalgam::kernels {

using namespace hopper;

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
    __device__ Schedule(const ChunkedCall& call, bool backwards) : chunks(call.chunks), backwards(backwards) {
        const int chains = (call.chains - static_cast<int>(blockIdx.x) + static_cast<int>(gridDim.x) - 1) /
                           static_cast<int>(gridDim.x);
        steps = chains * chunks;
    }
    __device__ Step operator[](int step) const {
        const int chain = blockIdx.x + step / chunks * gridDim.x, at = step % chunks;
        const int chunk = backwards ? chunks - 1 - at : at;
        return {chain, chunk, int64_t(chain) * chunks + chunk};
    }
    __device__ SequencePlace sequence(const ChunkedCall& call, int chain) const {
        return {int64_t(chain / call.heads) * call.time, call.time};
    }
};

template <>
struct Schedule<true> {
    int chunks, steps;
    bool backwards;
    int64_t first;  ///< tile index of the chain's first chunk
    SequencePlace place;
    __device__ Schedule(const ChunkedCall& call, bool backwards) : backwards(backwards) {
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
    __device__ SequencePlace sequence(const ChunkedCall&, int) const { return place; }
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

/// Of 64 numbers, one a token or channel, those of this thread's columns 8 i + .. of a fragment.
__device__ inline float2 of_columns(const float* values, int i) {
    return *reinterpret_cast<const float2*>(&values[8 * i + threadIdx.x % 4 * 2]);
}

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
inline bool halves_values(const ChunkedCall& call, int multiprocessors) {
    return call.chains * 4 <= multiprocessors * 3;
}

/// Blocks for all chains, at most as many as run at once unless chains have blocks of their own.
inline dim3 chain_grid(int dim, int groups, const ChunkedCall& call, int multiprocessors) {
    const int parts = dim / 64 / groups, at_once = multiprocessors * (dim == 64 ? 2 : 1) / parts;
    return dim3(call.packed > 0 || call.chains < at_once ? call.chains : at_once, parts);
}

}  // namespace amalgam::kernels
