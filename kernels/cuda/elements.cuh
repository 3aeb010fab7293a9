// SPDX-License-Identifier: Apache-2.0
// What the elementwise and row-wise CUDA kernels share: 16-byte accesses of float32 and bfloat16 elements, and sums
// over groups of lanes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.cuh"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels::cuda {

using Bfloat16 = __nv_bfloat16;

/// Elements of one 16-byte access.
template <class T>
inline constexpr int vector_length = 16 / sizeof(T);

/// `n` elements that are read and written in one access.
template <class T, int n>
struct alignas(sizeof(T) * n) Pack {
    T element[n];
};

__device__ __forceinline__ float widen(float x) {
    return x;
}
__device__ __forceinline__ float widen(Bfloat16 x) {
    return __bfloat162float(x);
}
__device__ __forceinline__ void narrow(float x, float& to) {
    to = x;
}
__device__ __forceinline__ void narrow(float x, Bfloat16& to) {
    to = __float2bfloat16_rn(x);
}

template <class T, int n>
__device__ __forceinline__ Pack<T, n> load_pack(const T* from) {
    return *reinterpret_cast<const Pack<T, n>*>(from);
}

/// The same from any address, in the largest accesses that it allows: rows of a fused projection often start anywhere.
template <class T, int n>
__device__ __forceinline__ Pack<T, n> load_pack_anywhere(const T* from) {
    const auto address = reinterpret_cast<std::uintptr_t>(from);
    if (address % sizeof(Pack<T, n>) == 0) return load_pack<T, n>(from);
    Pack<T, n> pack;
    constexpr int words = sizeof(pack) / 4;
    if (words > 0 && address % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; ++i)
            reinterpret_cast<std::uint32_t*>(&pack)[i] = reinterpret_cast<const std::uint32_t*>(from)[i];
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i) pack.element[i] = from[i];
    }
    return pack;
}

template <class T, int n>
__device__ __forceinline__ void store_pack_anywhere(T* to, const Pack<T, n>& pack) {
    const auto address = reinterpret_cast<std::uintptr_t>(to);
    constexpr int words = sizeof(pack) / 4;
    if (address % sizeof(pack) == 0) {
        *reinterpret_cast<Pack<T, n>*>(to) = pack;
    } else if (words > 0 && address % 4 == 0) {
#pragma unroll
        for (int i = 0; i < words; ++i)
            reinterpret_cast<std::uint32_t*>(to)[i] = reinterpret_cast<const std::uint32_t*>(&pack)[i];
    } else {
#pragma unroll
        for (int i = 0; i < n; ++i) to[i] = pack.element[i];
    }
}

template <class T, int n>
__device__ __forceinline__ void widen(const Pack<T, n>& pack, float (&to)[n]) {
#pragma unroll
    for (int i = 0; i < n; ++i) to[i] = widen(pack.element[i]);
}

template <class T, int n>
__device__ __forceinline__ Pack<T, n> narrowed(const float (&x)[n]) {
    Pack<T, n> pack;
#pragma unroll
    for (int i = 0; i < n; ++i) narrow(x[i], pack.element[i]);
    return pack;
}

template <int n, class T>
__device__ __forceinline__ void load(const T* from, float (&to)[n]) {
    widen(load_pack<T, n>(from), to);
}

template <int n, class T>
__device__ __forceinline__ void store(T* to, const float (&x)[n]) {
    *reinterpret_cast<Pack<T, n>*>(to) = narrowed<T, n>(x);
}

/// n floats (a weight, an accumulator in memory), in accesses of at most 16 bytes.
template <int n>
__device__ __forceinline__ void load_floats(const float* from, float (&to)[n]) {
    constexpr int step = n < 4 ? n : 4;
#pragma unroll
    for (int i = 0; i < n; i += step) {
        const auto pack = load_pack<float, step>(from + i);
#pragma unroll
        for (int j = 0; j < step; ++j) to[i + j] = pack.element[j];
    }
}

template <int n>
__device__ __forceinline__ void store_floats(float* to, const float (&x)[n]) {
    constexpr int step = n < 4 ? n : 4;
#pragma unroll
    for (int i = 0; i < n; i += step) {
        Pack<float, step> pack;
#pragma unroll
        for (int j = 0; j < step; ++j) pack.element[j] = x[i + j];
        *reinterpret_cast<Pack<float, step>*>(to + i) = pack;
    }
}

/// 2^x within about 2 units in the last place; 0 for -infinity, NaN for NaN.
__device__ __forceinline__ float exp2_approximate(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/// 1 / (1 + e^-x): as accurate as the storage type T can tell.
template <class T>
__device__ __forceinline__ float sigmoid(float x) {
    if constexpr (sizeof(T) == 2) return __fdividef(1.0F, 1.0F + __expf(-x));
    return 1.0F / (1.0F + expf(-x));
}

/// Sum over aligned groups of `lanes` (a power of two, at most 32) of a warp; every lane gets it.
template <int lanes>
__device__ __forceinline__ float group_sum(float x) {
#pragma unroll
    for (int distance = lanes / 2; distance > 0; distance /= 2) x += __shfl_xor_sync(0xffffffffU, x, distance);
    return x;
}

template <class T>
__device__ __forceinline__ const T* row_of(const ConstRows& rows, std::int64_t token) {
    return static_cast<const T*>(rows.data) + token * rows.stride;
}
template <class T>
__device__ __forceinline__ T* row_of(const Rows& rows, std::int64_t token) {
    return static_cast<T*>(rows.data) + token * rows.stride;
}

/// True if every 16-byte access at a multiple of 16 bytes into a row is aligned. Null views do not matter.
inline bool aligned(const ConstRows& rows, ElementType type) {
    const std::int64_t size = type == ElementType::bfloat16 ? 2 : 4;
    return reinterpret_cast<std::uintptr_t>(rows.data) % 16 == 0 && rows.stride * size % 16 == 0;
}
inline bool aligned(const void* pointer) {
    return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0;
}

/// Calls body with a null pointer of the element type, to choose a template by it.
template <class Body>
void with_element_type(ElementType type, Body&& body) {
    if (type == ElementType::bfloat16) {
        body(static_cast<Bfloat16*>(nullptr));
    } else {
        body(static_cast<float*>(nullptr));
    }
}

}  // namespace amalgam::kernels::cuda
