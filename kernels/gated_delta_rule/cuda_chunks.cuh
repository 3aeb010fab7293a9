// SPDX-License-Identifier: Apache-2.0
// How kernels of the delta rules cut sequences into chunks of 64 tokens. Tile index n = (sequence * heads + head) *
// chunks
// + chunk. Of packed sequences, n = head * chunks + slot, where `chunks` counts the slots and a sequence's chunks
// follow each other from its first slot (chunk_slots.h).
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/cuda/token_rows.cuh"
#include "kernels/gated_delta_rule/chunk_slots.h"

namespace amalgam::kernels {

/// What a call is about, in chunks.
struct ChunkedCall {
    int time, heads, chunks;
    int chains;  ///< sequences * heads
    int packed;  ///< sequences in the one row, or 0
    const int64_t* sequence_starts;
};

/// A sequence: its first token, and how many it has.
struct SequencePlace {
    int64_t start;
    int time;
};
__device__ inline SequencePlace packed_sequence(const ChunkedCall& call, int sequence) {
    const int64_t start = call.sequence_starts[sequence];
    return {start, static_cast<int>(call.sequence_starts[sequence + 1] - start)};
}
/// As first_slot, in 32 bits.
__device__ inline int packed_first_slot(const ChunkedCall& call, int sequence) {
    return static_cast<int>(call.sequence_starts[sequence] / chunk_tokens) + sequence;
}

/// A chunk for kernels that take them all at once: blockIdx is (chunk or slot, row * heads + head). Slots that no
/// sequence needs have `first` >= `time`.
struct ChunkPlace {
    int64_t n;      ///< tile index
    int64_t start;  ///< first token of its sequence
    int time, first, head;
};
__device__ inline ChunkPlace chunk_of_block(const ChunkedCall& call) {
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

inline dim3 chunk_grid(const ChunkedCall& call) {
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

/// Calls body(alignment) with 16, 4 or 2 as a constant.
template <class Body>
__device__ inline void with_alignment(int alignment, Body body) {
    if (alignment == 16)
        body(std::integral_constant<int, 16>{});
    else if (alignment == 4)
        body(std::integral_constant<int, 4>{});
    else
        body(std::integral_constant<int, 2>{});
}

/// 64 tokens of 64 columns of a gradient from a tile to the caller's rows, through the derivative of SiLU if asked.
template <int alignment>
__device__ inline void store_gradient(MutableDeviceRows out, DeviceRows raw, bool silu, const char* tile,
                                      int64_t first_token, int tokens, int column, int thread) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int at = i * 128 + thread, row = at / 8, piece = at % 8;
        if (row >= tokens) continue;
        uint4 x = *reinterpret_cast<const uint4*>(tile + hopper::tile_offset(row, piece));
        const int64_t token = first_token + row;
        if (silu) {
            const uint4 before = load_piece<alignment>(raw.data + token * raw.stride + column + piece * 8);
            const auto chain = [](uint32_t& gradient, uint32_t input) {
                const auto derivative = [](float z) {
                    const float sigmoid = 1.0F / (1.0F + __expf(-z));
                    return sigmoid * (1.0F + z * (1.0F - sigmoid));
                };
                gradient = hopper::pack(hopper::low_half(gradient) * derivative(hopper::low_half(input)),
                                        hopper::high_half(gradient) * derivative(hopper::high_half(input)));
            };
            chain(x.x, before.x), chain(x.y, before.y), chain(x.z, before.z), chain(x.w, before.w);
        }
        store_piece<alignment>(out.data + token * out.stride + column + piece * 8, x);
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
