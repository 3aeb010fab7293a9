// SPDX-License-Identifier: Apache-2.0
// What the elementwise and row-wise CPU kernels share: float32 and bfloat16 elements as vectors of floats, whole or in
// part, and scratch memory. Like kernels/isa/vector.h it is compiled once per instruction set, into the namespace
// AMALGAM_ISA; where that header has no registers to offer (no AVX2), the compiler's vector extensions stand in.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/element_type.h"

#if defined(__AVX2__)
#include "kernels/isa/vector.h"
#endif

namespace amalgam::kernels::AMALGAM_ISA {

#if !defined(__AVX2__)
inline constexpr int lanes = 8;
typedef float Vector __attribute__((vector_size(4 * lanes)));
typedef std::uint16_t HalfVector __attribute__((vector_size(2 * lanes)));

inline Vector zero() {
    return Vector{};
}
inline Vector broadcast(float x) {
    return x - Vector{};
}  // not Vector{} + x, which loses the sign of -0
inline Vector fma(Vector x, Vector y, Vector z) {
    return x * y + z;
}
inline Vector min(Vector x, Vector y) {
    return x < y ? x : y;
}
inline Vector max(Vector x, Vector y) {
    return x > y ? x : y;
}

inline HalfVector round_to_bf16(Vector x) {
    typedef std::uint32_t Bits __attribute__((vector_size(4 * lanes)));
    const Bits bits = (Bits)x;
    const Bits rounded = bits + 0x7fffU + ((bits >> 16) & 1U);
    return __builtin_convertvector((x != x ? bits | 0x400000U : rounded) >> 16, HalfVector);
}
inline Vector widen_bf16(HalfVector x) {
    typedef std::uint32_t Bits __attribute__((vector_size(4 * lanes)));
    return (Vector)(__builtin_convertvector(x, Bits) << 16);
}
inline float sum(Vector x) {
    return ((x[0] + x[4]) + (x[2] + x[6])) + ((x[1] + x[5]) + (x[3] + x[7]));
}
#else
#if defined(__AVX512F__)
using HalfVector = __m256i;
#else
using HalfVector = __m128i;
#endif
#endif

inline Vector square_root(Vector x) {
#if defined(__AVX512F__)
    return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
    return _mm256_sqrt_ps(x);
#else
    for (int i = 0; i < lanes; ++i) x[i] = __builtin_sqrtf(x[i]);
    return x;
#endif
}

// The storage of one bfloat16 element.
struct Bfloat16 {
    std::uint16_t bits;
};

// How much of a vector a load or a store touches; absent lanes load as zero.
struct Whole {};
struct Part {
    int count;
};

inline Vector load(const float* from, Whole) {
    Vector x;
    std::memcpy(&x, from, sizeof(x));
    return x;
}

inline Vector load(const Bfloat16* from, Whole) {
    HalfVector half;
    std::memcpy(&half, from, sizeof(half));
    return widen_bf16(half);
}

inline void store(float* to, Vector x, Whole) {
    std::memcpy(to, &x, sizeof(x));
}

inline void store(Bfloat16* to, Vector x, Whole) {
    const HalfVector half = round_to_bf16(x);
    std::memcpy(to, &half, sizeof(half));
}

#if defined(__AVX512F__)
inline Vector load(const float* from, Part part) {
    return _mm512_maskz_loadu_ps(first_lanes(part.count), from);
}

inline Vector load(const Bfloat16* from, Part part) {
    return widen_bf16(_mm256_maskz_loadu_epi16(first_lanes(part.count), from));
}

inline void store(float* to, Vector x, Part part) {
    _mm512_mask_storeu_ps(to, first_lanes(part.count), x);
}

inline void store(Bfloat16* to, Vector x, Part part) {
    _mm256_mask_storeu_epi16(to, first_lanes(part.count), round_to_bf16(x));
}
#else
inline Vector load(const float* from, Part part) {
    float x[lanes] = {};
    for (int i = 0; i < part.count; ++i) x[i] = from[i];
    return load(x, Whole{});
}

inline Vector load(const Bfloat16* from, Part part) {
    Bfloat16 x[lanes] = {};
    for (int i = 0; i < part.count; ++i) x[i] = from[i];
    return load(x, Whole{});
}

template <class T>
inline void store(T* to, Vector x, Part part) {
    T rounded[lanes];
    store(rounded, x, Whole{});
    for (int i = 0; i < part.count; ++i) to[i] = rounded[i];
}
#endif

// x as it reads back after a store to elements of the pointer's type.
inline Vector as_stored(const float*, Vector x) {
    return x;
}
inline Vector as_stored(const Bfloat16*, Vector x) {
    return widen_bf16(round_to_bf16(x));
}

// x with the absent lanes replaced by `other`.
inline Vector fill_absent(Vector x, Whole, float) {
    return x;
}
inline Vector fill_absent(Vector x, Part part, float other) {
    float lane[lanes];
    store(lane, x, Whole{});
    for (int i = part.count; i < lanes; ++i) lane[i] = other;
    return load(lane, Whole{});
}

inline float largest_lane(Vector x) {
    float lane[lanes];
    store(lane, x, Whole{});
    float largest = lane[0];
    for (int i = 1; i < lanes; ++i) largest = lane[i] > largest ? lane[i] : largest;
    return largest;
}

// Calls body(i, Whole) for each whole vector of [0, count) and body(i, Part) for what is left.
template <class Body>
inline __attribute__((always_inline)) void for_each_vector(std::int64_t count, Body&& body) {
    std::int64_t i = 0;
    for (; i + lanes <= count; i += lanes) body(i, Whole{});
    if (i < count) body(i, Part{static_cast<int>(count - i)});
}

// Calls body with a null pointer of the element type, to choose a template by it.
template <class Body>
inline void with_element_type(ElementType type, Body&& body) {
    if (type == ElementType::bfloat16) {
        body(static_cast<Bfloat16*>(nullptr));
    } else {
        body(static_cast<float*>(nullptr));
    }
}

// Uninitialised memory for one call. A standard container would leave instantiations for this instruction set where the
// linker may hand them to code for an older one.
template <class T>
class Scratch {
  public:
    explicit Scratch(std::int64_t count) : data_(static_cast<T*>(std::malloc(sizeof(T) * (count > 0 ? count : 1)))) {
        if (data_ == nullptr) throw std::bad_alloc();
    }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    ~Scratch() { std::free(data_); }
    T* get() const { return data_; }

  private:
    T* data_;
};

}  // namespace amalgam::kernels::AMALGAM_ISA
