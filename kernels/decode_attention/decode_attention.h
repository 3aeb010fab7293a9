// SPDX-License-Identifier: Apache-2.0
// Softmax attention of one new token of each of several sequences, whose keys and values lie in a cache of fixed size.
//
// The cache has `slots` places for sequences: keys and values, each [slots, key_value_heads, capacity, width],
// contiguous, of element type `type`, keys after rotation. Row i of a batch belongs to the sequence in slot[i], which
// has seen length[i] tokens before this one, so that its new token has position length[i]. Rows of negative slot are
// left alone: neither read nor written. No slot occurs twice in a batch.
//
// Append: q and k get an RMS norm per head, where one is given, then the rotation of rotary.h by the table row of their
// position; q goes to `rotated`, k and v into the cache at their position. Values are rounded to `type` after the norm
// and after the rotation, as where norm and rotation are operations of their own.
//
// Attention, for head h of row i with key head h / (query_heads / key_value_heads), over the positions
// first_i <= t <= length[i], first_i = 0, or length[i] - window + 1 where a window is shorter:
//     o = sum_t p_t v_t,  p = softmax(scale k_t . q)
// Every cached key and value is read once for all query heads of its group. The arithmetic is float32 (on GPUs, of
// bfloat16, products of bfloat16 with float32 sums). Results depend neither on `threads` nor on the other rows.
#pragma once

#include <cstdint>

#include "kernels/cuda/stream.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels {

/// Sizes that both operations share, in elements.
struct CacheShape {
    std::int64_t batch = 0;
    std::int64_t query_heads = 0;
    std::int64_t key_value_heads = 0;  // divides query_heads
    std::int64_t width = 0;            // of a head
    std::int64_t capacity = 0;         // tokens of a slot; every length is below it
};

struct CacheAppend {
    ElementType type;
    CacheShape shape;
    const std::int32_t* slot = nullptr;    // [batch]
    const std::int32_t* length = nullptr;  // [batch]
    ConstRows q, k, v;                     // [batch, heads * width]
    const float* q_norm = nullptr;         // [width], optional
    const float* k_norm = nullptr;         // [width], with q_norm
    float epsilon = 0;                     // of the norms
    const float* cos = nullptr;            // [capacity, width], as in rotary.h
    const float* sin = nullptr;
    Rows rotated;  // [batch, query_heads * width]; may be q
    void* keys = nullptr;
    void* values = nullptr;
};

struct DecodeAttention {
    ElementType type;
    CacheShape shape;
    const std::int32_t* slot = nullptr;    // [batch]
    const std::int32_t* length = nullptr;  // [batch]
    std::int64_t window = 0;               // tokens that are seen, the new one included; 0: all
    float scale = 0;                       // 0 stands for width^-1/2
    ConstRows q;                           // [batch, query_heads * width], rotated
    const void* keys = nullptr;
    const void* values = nullptr;
    Rows o;  // [batch, query_heads * width]
};

/// Throw std::invalid_argument on impossible sizes and for a length that the cache has no place for.
void append_to_cache(const CacheAppend& arguments, int threads);
void decode_attention(const DecodeAttention& arguments, int threads);

/// On device memory, queued on `stream`; only in builds with CUDA. Rows whose length the cache has no place for are
/// left alone. Launches depend on the shape only, so that they can be recorded once and replayed with other contents
/// of `slot` and `length`. Into how many parts a row's keys are cut depends on the shape, its number of rows included,
/// and on the row's own length: alone, a sequence may get other last bits than in a batch. The attention reads these,
/// and all tokens of the cache but the new ones, while kernels in front of it are at work
/// (kernels/cuda/dependent_launch.cuh): these must not write them.
namespace cuda {

/// True for widths 32, 64, 96 and 128.
bool decode_attention_supports(const CacheShape& shape);

void append_to_cache(const CacheAppend& arguments, Stream stream);

/// Device memory that the attention needs beside its operands, bytes: `workspace`, at a multiple of 16 bytes,
/// uninitialised and free again when the queued work is done; and `counters`, which are zero before the first call and
/// which every call leaves zero.
std::int64_t decode_attention_workspace(const CacheShape& shape);
std::int64_t decode_attention_counters(const CacheShape& shape);
/// Rows of q, o and the cache start at multiples of 16 bytes.
void decode_attention(const DecodeAttention& arguments, void* workspace, void* counters, Stream stream);
/// Both, the same bits, of bfloat16 in one kernel, which leaves append.rotated alone.
void append_and_attend(const CacheAppend& append, const DecodeAttention& attention, void* workspace, void* counters,
                       Stream stream);

}  // namespace cuda

namespace reference {

// The formulas above in double precision on contiguous arrays: q, o [batch, query_heads, width], k, v [batch,
// key_value_heads, width]. Norms may be null.
void append_to_cache(const CacheShape& shape, const std::int32_t* slot, const std::int32_t* length, const double* q,
                     const double* k, const double* v, const double* q_norm, const double* k_norm, double epsilon,
                     const double* cos, const double* sin, double* rotated, double* keys, double* values);
void decode_attention(const CacheShape& shape, const std::int32_t* slot, const std::int32_t* length,
                      std::int64_t window, double scale, const double* q, const double* keys, const double* values,
                      double* o);

}  // namespace reference
}  // namespace amalgam::kernels
