// SPDX-License-Identifier: Apache-2.0
// What the kernels of Kimi Delta Attention on GPUs pass to each other. Of one chunk and key channel, eG_i is the decay
// from the chunk's start to and with token i, er_i that from behind token i to the chunk's end, eC that of the whole
// chunk.
#pragma once

#include "kernels/gated_delta_rule/cuda_chunks.cuh"

namespace amalgam::kernels::kimi_delta {

/// Per-token numbers of a chunk.
struct ChunkNumbers {
    float beta[64];
    float q_factor[64];  ///< 1 / |q|, or 1
    float k_factor[64];  ///< 1 / |k|, or 1
};

/// Made by the prepare kernel for both chains, one of each per tile index; all tiles of bf16.
struct SavedChunks {
    char* operands;  ///< [n][3][key tile]: scale eG Q, eG K, er K with normalised Q and K
    char* pairs;  ///< [n][2]: Ag = (I + strictly lower part of b_i k_i.k_j)^-1 b_j, Pg = scale q_i.k_j for j <= i, with
                  ///< decays
    float* decays;          ///< [n][key channel]: eC
    ChunkNumbers* numbers;  ///< [n]
    char* states;           ///< [n][value tile][key tile]: S at the chunk's start, transposed; null if not wanted
    char* values;           ///< [n][value tile]: V', where states are wanted
};

struct ForwardCall : ChunkedCall {
    float scale, lower_bound;
    bool l2_normalize;
    DeviceRows q, k, v, a;  ///< after SiLU
    DeviceRows b;           ///< any alignment
    const float *A_log, *dt_bias, *initial_state;
    SavedChunks saved;
    MutableDeviceRows o;
    float* final_state;
};

/// The backward pass. What its chain of states leaves for the chunks, in bf16 tiles like SavedChunks::states.
struct BackwardCall {
    ForwardCall forward;  ///< inputs and saved chunks
    DeviceRows output_gradient;
    const float* final_state_gradient;
    char* state_gradients;  ///< [n][value tile][key tile]: gradient of the state at the chunk's end, transposed
    char* error_gradients;  ///< [n][value tile]: of W = V - eG K S, which is also the gradient of V
    float* A_log_sums;      ///< [n]: contributions to the gradient of A_log
    float* dt_bias_sums;    ///< [n][key channel]: to that of dt_bias
    DeviceRows raw_q, raw_k, raw_v;  ///< before SiLU, any alignment
    bool silu;
    int alignment;  ///< bytes, of the rows of raw_q .. and of q, k, v, a: 16, 4 or 2
    MutableDeviceRows q, k, v, a, b;
    float *A_log, *dt_bias, *initial_state;
    int multiprocessors;
};

struct DecodeCall {
    int heads;
    float scale, lower_bound;
    bool silu, l2_normalize;
    DeviceRows q, k, v, a, b;  ///< any alignment
    const float *A_log, *dt_bias;
    const int32_t* slot;  ///< or null
    float* state;
    __nv_bfloat16* o;
};

/// Decays, norms, and the operands of every chunk.
template <int dim>
void launch_prepare(const ForwardCall& call, cudaStream_t stream);
/// The chain of states and the outputs.
template <int dim>
void launch_forward(const ForwardCall& call, int multiprocessors, cudaStream_t stream);
/// The chain of state gradients, from the last chunk to the first.
template <int dim>
void launch_backward_states(const BackwardCall& call, cudaStream_t stream);
/// Everything else, for all chunks at once.
template <int dim>
void launch_backward_chunks(const BackwardCall& call, cudaStream_t stream);
/// Adds up what the chunks leave of the gradients of A_log and dt_bias.
template <int dim>
void launch_sum_gates(const BackwardCall& call, cudaStream_t stream);
template <int dim>
void launch_decode(const DecodeCall& call, int sequences_heads, cudaStream_t stream);

}  // namespace amalgam::kernels::kimi_delta
