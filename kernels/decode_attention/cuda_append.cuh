// SPDX-License-Identifier: Apache-2.0
// What becomes of the heads of a new token before they are cached: an RMS norm and the rotation, by a warp.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/decode_attention/decode_attention.h"

namespace amalgam::kernels::cuda::decode {

/// What the append makes of a head of a row: the channels lane + 32 i of both halves. `pairs`: of channels, per lane.
/// Values (norm and table null) stay as they are.
template <class T, int pairs>
__device__ __forceinline__ void turn_head(const CacheAppend& a, const T* x, const float* norm, bool rotate,
                                          int position, T (&low)[pairs], T (&high)[pairs]) {
    const int lane = int(threadIdx.x) % 32, width = int(a.shape.width), half = width / 2;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j < half) low[i] = x[j], high[i] = x[j + half];
    }
    if (norm != nullptr) {
        float squares = 0;
#pragma unroll
        for (int i = 0; i < pairs; ++i)
            if (lane + 32 * i < half)
                squares = fmaf(widen(low[i]), widen(low[i]), fmaf(widen(high[i]), widen(high[i]), squares));
        const float factor = rsqrtf(group_sum<32>(squares) / float(width) + a.epsilon);
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
            const int j = lane + 32 * i;
            if (j >= half) continue;
            narrow(widen(low[i]) * factor * norm[j], low[i]);
            narrow(widen(high[i]) * factor * norm[j + half], high[i]);
        }
    }
    if (!rotate) return;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j >= half) continue;
        const std::int64_t table = std::int64_t(position) * width + j;
        const float l = widen(low[i]), h = widen(high[i]);
        narrow(l * a.cos[table] - h * a.sin[table], low[i]);
        narrow(h * a.cos[table + half] + l * a.sin[table + half], high[i]);
    }
}

template <class T, int pairs>
__device__ __forceinline__ void store_head(T* y, int width, const T (&low)[pairs], const T (&high)[pairs]) {
    const int lane = int(threadIdx.x) % 32, half = width / 2;
#pragma unroll
    for (int i = 0; i < pairs; ++i) {
        const int j = lane + 32 * i;
        if (j < half) y[j] = low[i], y[j + half] = high[i];
    }
}

}  // namespace amalgam::kernels::cuda::decode
