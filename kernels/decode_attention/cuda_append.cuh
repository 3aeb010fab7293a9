// SPDX-License-Identifier: Apache-2.0
// What becomes of the heads of a new token before they are cached: an RMS norm and the rotation, by a warp.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/decode_attention/decode_attention.h"

namespace amalgam::kernels::cuda::decode {

/// Of a row of the tables, what a lane needs: of the channels lane + 32 i of both halves, `pairs` of them. The tables
/// are no kernel's to write, so that this can be loaded before the kernels in front have ended.
template <int pairs>
struct TableRow {
    float cos[2][pairs] = {}, sin[2][pairs] = {};  // [half]

    __device__ __forceinline__ void load(const CacheAppend& a, int position) {
        const int lane = int(threadIdx.x) % 32, width = int(a.shape.width), half = width / 2;
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
            const int j = lane + 32 * i;
            if (j >= half) continue;
            const std::int64_t at = std::int64_t(position) * width + j;
            cos[0][i] = a.cos[at], cos[1][i] = a.cos[at + half];
            sin[0][i] = a.sin[at], sin[1][i] = a.sin[at + half];
        }
    }
};

/// A head in the registers of a warp: the same channels.
template <class T, int pairs>
struct Head {
    T low[pairs] = {}, high[pairs] = {};

    __device__ __forceinline__ void load(const T* x, int width) {
        const int lane = int(threadIdx.x) % 32, half = width / 2;
#pragma unroll
        for (int i = 0; i < pairs; ++i)
            if (const int j = lane + 32 * i; j < half) low[i] = x[j], high[i] = x[j + half];
    }
    __device__ __forceinline__ void store(T* y, int width) const {
        const int lane = int(threadIdx.x) % 32, half = width / 2;
#pragma unroll
        for (int i = 0; i < pairs; ++i)
            if (const int j = lane + 32 * i; j < half) y[j] = low[i], y[j + half] = high[i];
    }
    __device__ __forceinline__ void normalize(const float* norm, int width, float epsilon) {
        const int lane = int(threadIdx.x) % 32, half = width / 2;
        float squares = 0;
#pragma unroll
        for (int i = 0; i < pairs; ++i)
            if (lane + 32 * i < half)
                squares = fmaf(widen(low[i]), widen(low[i]), fmaf(widen(high[i]), widen(high[i]), squares));
        const float factor = rsqrtf(group_sum<32>(squares) / float(width) + epsilon);
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
            const int j = lane + 32 * i;
            if (j >= half) continue;
            narrow(widen(low[i]) * factor * norm[j], low[i]);
            narrow(widen(high[i]) * factor * norm[j + half], high[i]);
        }
    }
    __device__ __forceinline__ void rotate(const TableRow<pairs>& table) {
#pragma unroll
        for (int i = 0; i < pairs; ++i) {
            const float l = widen(low[i]), h = widen(high[i]);
            narrow(l * table.cos[0][i] - h * table.sin[0][i], low[i]);
            narrow(h * table.cos[1][i] + l * table.sin[1][i], high[i]);
        }
    }
    /// What the append makes of it. Values stay as they are.
    __device__ __forceinline__ void append(const CacheAppend& a, bool query, bool value, const TableRow<pairs>& table) {
        if (value) return;
        const float* norm = query ? a.q_norm : a.k_norm;
        if (norm != nullptr) normalize(norm, int(a.shape.width), a.epsilon);
        rotate(table);
    }
};

}  // namespace amalgam::kernels::cuda::decode
