// SPDX-License-Identifier: Apache-2.0
// What the kernels of the gated delta rule on GPUs pass to each other. Chunks of 64 tokens; tile index
// n = (sequence * heads + head) * chunks + chunk. Of packed sequences, n = head * chunks + slot, where `chunks` counts
// the slots and a sequence's chunks follow each other from its first slot (chunk_slots.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/token_rows.cuh"
#include "kernels/gated_delta_rule/chunk_slots.h"

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

struct CudaForwardCall {
    int time, heads, chunks;
    int chains;  ///< sequences * heads
    int packed;  ///< sequences in the one row, or 0
    const int64_t* sequence_starts;
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

/// A sequence: its first token, and how many it has.
struct SequencePlace {
    int64_t start;
    int time;
};
__device__ inline SequencePlace packed_sequence(const CudaForwardCall& call, int sequence) {
    const int64_t start = call.sequence_starts[sequence];
    return {start, static_cast<int>(call.sequence_starts[sequence + 1] - start)};
}
/// As first_slot, in 32 bits.
__device__ inline int packed_first_slot(const CudaForwardCall& call, int sequence) {
    return static_cast<int>(call.sequence_starts[sequence] / chunk_tokens) + sequence;
}

/// A chunk for kernels that take them all at once: blockIdx is (chunk or slot, row * heads + head). Slots that no
/// sequence needs have `first` >= `time`.
struct ChunkPlace {
    int64_t n;      ///< tile index
    int64_t start;  ///< first token of its sequence
    int time, first, head;
};
__device__ inline ChunkPlace chunk_of_block(const CudaForwardCall& call) {
    const int row = static_cast<int>(blockIdx.y) / call.heads, head = static_cast<int>(blockIdx.y) % call.heads;
    const int64_t n = int64_t(blockIdx.y) * call.chunks + blockIdx.x;
    int slot = static_cast<int>(blockIdx.x);
    if (call.packed == 0) return {n, int64_t(row) * call.time, call.time, slot * chunk_tokens, head};
    int sequence = 0;  // the last whose first slot is not behind this one
    for (int above = call.packed; above - sequence > 1;) {
        const int middle = (sequence + above) / 2;
        (packed_first_slot(call, middle) <= slot ? sequence : above) = middle;
    }
    const auto [start, time] = packed_sequence(call, sequence);
    slot -= packed_first_slot(call, sequence);
    return {n, start, time, slot * chunk_tokens, head};
}

inline dim3 chunk_grid(const CudaForwardCall& call) {
    return dim3(call.chunks, call.packed > 0 ? call.heads : call.chains);
}

/// Eight elements at an address that is a multiple of `alignment` (16, 4 or 2) bytes.
template <int alignment>
__device__ inline uint4 load_piece(const __nv_bfloat16* source) {
    const auto word = [&](int i) {
        const auto* half = reinterpret_cast<const uint16_t*>(source);
        if constexpr (alignment == 2) return half[2 * i] | uint32_t(half[2 * i + 1]) << 16;
        return reinterpret_cast<const uint32_t*>(source)[i];
    };
    if constexpr (alignment == 16)
        return *reinterpret_cast<const uint4*>(source);
    else
        return make_uint4(word(0), word(1), word(2), word(3));
}
template <int alignment>
__device__ inline void store_piece(__nv_bfloat16* target, uint4 piece) {
    const uint32_t x[4] = {piece.x, piece.y, piece.z, piece.w};
    if constexpr (alignment == 16) {
        *reinterpret_cast<uint4*>(target) = piece;
    } else if constexpr (alignment == 4) {
#pragma unroll
        for (int i = 0; i < 4; ++i) reinterpret_cast<uint32_t*>(target)[i] = x[i];
    } else {
        auto* half = reinterpret_cast<uint16_t*>(target);
#pragma unroll
        for (int i = 0; i < 4; ++i) half[2 * i] = uint16_t(x[i]), half[2 * i + 1] = uint16_t(x[i] >> 16);
    }
}

/// Sum of squares of row thread / 2 of a loaded matrix; both threads of a row get it. For 128 threads.
template <int dim>
__device__ inline float row_square(const char* tiles, int thread) {
    const int row = thread / 2;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < dim / 16; ++i) {
        const int piece = thread % 2 * (dim / 16) + i;
        const uint4 x = *reinterpret_cast<const uint4*>(tiles + piece / 8 * hopper::tile_bytes +
                                                        hopper::tile_offset(row, piece % 8));
        for (uint32_t pair : {x.x, x.y, x.z, x.w}) {
            const float low = hopper::low_half(pair), high = hopper::high_half(pair);
            sum += low * low + high * high;
        }
    }
    return sum + __shfl_xor_sync(~0U, sum, 1);
}

constexpr float normalize_epsilon = 1e-6F;

}  // namespace amalgam::kernels
