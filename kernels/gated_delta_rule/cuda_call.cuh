// SPDX-License-Identifier: Apache-2.0
// What the kernels of the gated delta rule on GPUs pass to each other.
#pragma once

#include "kernels/gated_delta_rule/cuda_chunks.cuh"

namespace amalgam::kernels {

/// Per-token numbers of a chunk, 64 floats each.
struct ChunkScalars {
    float log_decay[64];  ///< sum of g up to and with the token, times log2(e)
    float beta[64];
    float k_factor[64];  ///< 1 / |k|, or 1
    float q_factor[64];
};

/// Saved by the forward pass for the backward pass, one of each per tile index.
struct SavedChunks {
    ChunkScalars* scalars;
    uint4* inverse;  ///< [n][4][128]: R = (I + strictly lower part of beta_i k_i.k_j)^-1 in fp16, as 64 x 64 fragments
    char* states;  ///< [n][value tile][key tile]: S at the chunk's start, transposed, in bf16 tiles; null if not wanted
    char* values;  ///< [n][value tile]: V' in bf16 tiles, where states are wanted
};

struct CudaForwardCall : ChunkedCall {
    float scale;
    bool l2_normalize;
    DeviceRows q, k, v;  ///< after SiLU
    DeviceRows a, b;     ///< any alignment
    const float *A_log, *dt_bias, *initial_state;
    SavedChunks saved;
    MutableDeviceRows o;
    float* final_state;
};

/// The backward pass. What its chain of states leaves for the chunks, all in bf16 tiles like SavedChunks::states.
struct CudaBackwardCall {
    CudaForwardCall forward;  ///< inputs and saved chunks
    DeviceRows output_gradient;
    const float* final_state_gradient;
    char* state_gradients;  ///< [n][value tile][key tile]: gradient of the state at the chunk's end, transposed
    char* error_gradients;  ///< [n][value tile]: of W = V - eg K S, which is also the gradient of V
    float* sums;            ///< [n][2]: contributions to the gradients of A_log and dt_bias
    DeviceRows raw_q, raw_k, raw_v;  ///< before SiLU, any alignment
    bool silu;
    int alignment;  ///< bytes, of the rows of raw_q .. and of q, k, v: 16, 4 or 2
    MutableDeviceRows q, k, v, a, b;
    float *A_log, *dt_bias, *initial_state;
    int multiprocessors;
};

struct CudaDecodeCall {
    int heads;
    float scale;
    bool silu, l2_normalize;
    DeviceRows q, k, v, a, b;  ///< any alignment
    const float *A_log, *dt_bias;
    const int32_t* slot;  ///< or null
    float* state;
    __nv_bfloat16* o;
};

template <int dim>
void launch_decode(const CudaDecodeCall& call, int sequences_heads, cudaStream_t stream);
/// Gates, norms and the inverse of every chunk.
template <int dim>
void launch_prepare(const CudaForwardCall& call, cudaStream_t stream);
/// The chain of states and the outputs.
template <int dim>
void launch_forward(const CudaForwardCall& call, int multiprocessors, cudaStream_t stream);

/// The chain of state gradients, from the last chunk to the first.
template <int dim>
void launch_backward_states(const CudaBackwardCall& call, cudaStream_t stream);
/// Everything else, for all chunks at once.
template <int dim>
void launch_backward_chunks(const CudaBackwardCall& call, cudaStream_t stream);

}  // namespace amalgam::kernels
