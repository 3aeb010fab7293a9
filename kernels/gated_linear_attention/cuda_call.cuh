// SPDX-License-Identifier: Apache-2.0
// What the kernels of gated linear attention on GPUs pass to each other, and the decays of a chunk, which all of them
// work out from the raw gates. Chunks of 64 tokens; tile index n = (sequence * heads + head) * chunks + chunk.
//
// Of one chunk, per key channel: G_i the cumulated log decays (log2 here), G_mid that of its token 31, G_last of its
// last. exp(G_i - G_j) is taken apart around the middle, exp(G_i - G_mid) exp(G_mid - G_j), so that a product of
// matrices has both; where a factor could leave the range of numbers ("steep": the decays of half a chunk multiply to
// less than e^-60), every pair of tokens has its own exponential instead, slowly.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/fragments.cuh"
#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/token_rows.cuh"

namespace amalgam::kernels::linear_attention {

constexpr int chunk_tokens = 64;
constexpr float steep = 86.0F;  ///< of |G_i - G_mid|, in log2

struct ForwardCall {
    int time, heads, chunks;
    int chains;  ///< sequences * heads
    float scale;
    float gate_factor;  ///< 1 / gate_logit_normalizer
    DeviceRows q, k, v, gate;
    const float* initial_state;
    char* states;  ///< [n][key tile][value tile]: S at the chunk's start in bf16 tiles, rows are key channels
    MutableDeviceRows o;
    float* final_state;
};

struct BackwardCall {
    ForwardCall forward;
    DeviceRows output_gradient;
    const float* final_state_gradient;
    char* state_gradients;  ///< like ForwardCall::states: gradient of the state at the chunk's end
    MutableDeviceRows q, k, v, gate;
    float* initial_state;
};

struct DecodeCall {
    int heads;
    float scale, gate_factor;
    DeviceRows q, k, v, gate;  ///< any alignment
    const int32_t* slot;       ///< or null
    float* state;
    __nv_bfloat16* o;
};

template <int dim>
void launch_decode(const DecodeCall& call, int sequences_heads, cudaStream_t stream);

/// The chain of states, and of their gradients.
template <int dim>
void launch_states(const ForwardCall& call, cudaStream_t stream);
template <int dim>
void launch_state_gradients(const BackwardCall& call, cudaStream_t stream);
/// For all chunks at once: the outputs, and the gradients of the inputs.
template <int dim>
void launch_outputs(const ForwardCall& call, cudaStream_t stream);
template <int dim>
void launch_gradients(const BackwardCall& call, cudaStream_t stream);

/// log2(sigmoid(x)) * factor
__device__ inline float log_decay(float x, float factor) {
    constexpr float log2_e = 1.44269504F;
    return (fminf(x, 0.0F) * log2_e - __log2f(1.0F + exp2_fast(-fabsf(x) * log2_e))) * factor;
}

/// A thread's place in a tile of tokens x channels, for work on single elements: two neighbouring channels of the
/// tokens of one of `parts` parts of a chunk. A warp takes 16 bytes x 8 of one token at a time.
template <int parts>
struct Column {
    static constexpr int rows = chunk_tokens / parts;
    int part, pair;
    __device__ explicit Column(int thread) : part(thread / 32), pair(thread % 32) {}
    __device__ int row(int i) const { return part * rows + i; }
    /// The two elements of row(i).
    __device__ uint32_t& in(char* tile, int i) const {
        return *reinterpret_cast<uint32_t*>(tile + tile_offset(row(i), pair / 4) + pair % 4 * 4);
    }
};

/// Cumulated log decays from the part's first token on, by `gates(i)`, the raw gates of token row(i); returns their
/// sum. Tokens from `tokens` on have none.
template <int parts, class Gates>
__device__ float2 cumulate(float2 (&G)[Column<parts>::rows], Gates gates, const Column<parts>& at, int tokens,
                           float factor) {
    float2 sum = {0.0F, 0.0F};
#pragma unroll
    for (int i = 0; i < Column<parts>::rows; ++i) {
        const uint32_t x = gates(i);
        if (at.row(i) < tokens) sum.x += log_decay(low_half(x), factor), sum.y += log_decay(high_half(x), factor);
        G[i] = sum;
    }
    return sum;
}

/// Sum over parts [first, end) of what `of_part(p)` holds for this thread's pair of channels.
template <int parts, class OfPart>
__device__ float2 sum_parts(OfPart of_part, int first, int end) {
    float2 sum = {0.0F, 0.0F};
#pragma unroll
    for (int p = 0; p < parts; ++p)
        if (p >= first && p < end) sum.x += of_part(p).x, sum.y += of_part(p).y;
    return sum;
}

/// Element (row, column) of a 64 x 64 matrix of floats, laid out free of bank conflicts by rows and by fragments.
__device__ inline int float_index(int row, int column) {
    return row * 64 + (column ^ ((row & 7) * 8));
}

}  // namespace amalgam::kernels::linear_attention
