// SPDX-License-Identifier: Apache-2.0
// Puts what the warps of a block have found together, and what the blocks of a head have.
#pragma once

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/hopper.cuh"
#include "kernels/decode_attention/cuda_call.cuh"

namespace amalgam::kernels::cuda::decode {

/// What a warp has found of the block's heads, in shared memory.
template <int width>
struct Found {
    float largest[heads], sum[heads];
    float mixed[heads][width + 1];
};

__device__ __forceinline__ void store(Bfloat16* to, const float4& x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(hopper::pack(x.x, x.y), hopper::pack(x.z, x.w));
}
__device__ __forceinline__ void store(float* to, const float4& x) {
    *reinterpret_cast<float4*>(to) = x;
}

__device__ __forceinline__ float warp_maximum(float x) {
#pragma unroll
    for (int distance = 16; distance > 0; distance /= 2) x = fmaxf(x, __shfl_xor_sync(~0U, x, distance));
    return x;
}

/// Puts the parts of a head together, which other blocks have written: a warp for a head, four channels a lane. All
/// loads of a turn are under way at once: one after the other, they would take longer than reading the keys. Not
/// inlined: the loop over the keys would get fewer registers.
template <class T, int width>
__device__ __noinline__ void merge(const Call& c, const Stretch& at, int h, int lane) {
    constexpr int quads = width / 4, at_once = 16;
    const std::int64_t head = at.row * c.a.shape.query_heads + at.first_head + h, part = head * c.sharing.splits;
    const float4* mixed = reinterpret_cast<const float4*>(c.mixed + part * width) + min(lane, quads - 1);
    float4 y[at_once];
    const auto load = [&](int first) {
#pragma unroll
        for (int i = 0; i < at_once; ++i)
            y[i] = first + i < at.splits ? __ldcg(mixed + (first + i) * quads) : make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    };
    load(0);
    float2 weight[most_splits / 32];
    float largest = -INFINITY, sum = 0;
#pragma unroll
    for (int i = 0; i < most_splits / 32; ++i) {
        const int p = 32 * i + lane;
        weight[i] = p < at.splits ? __ldcg(c.weights + part + p) : make_float2(-INFINITY, 0.0F);
        largest = fmaxf(largest, weight[i].x);
    }
    largest = warp_maximum(largest);
#pragma unroll
    for (int i = 0; i < most_splits / 32; ++i) {
        weight[i].x = exp2_approximate(weight[i].x - largest);  // a row has at least one key
        sum = fmaf(weight[i].x, weight[i].y, sum);
    }
    sum = group_sum<32>(sum);
    float4 x = make_float4(0.0F, 0.0F, 0.0F, 0.0F);
    for (int first = 0; first < at.splits; first += at_once) {
        if (first > 0) load(first);
#pragma unroll
        for (int i = 0; i < at_once; ++i) {
            const float factor = __shfl_sync(~0U, first < 32 ? weight[0].x : weight[1].x, (first + i) % 32);
            x.x = fmaf(factor, y[i].x, x.x), x.y = fmaf(factor, y[i].y, x.y);
            x.z = fmaf(factor, y[i].z, x.z), x.w = fmaf(factor, y[i].w, x.w);
        }
    }
    if (lane < quads)
        store(row_of<T>(c.a.o, at.row) + (at.first_head + h) * width + 4 * lane,
              make_float4(x.x / sum, x.y / sum, x.z / sum, x.w / sum));
}

/// Puts the warps of a block together, and the blocks of a head. All threads of the block call it after a barrier.
template <class T, int width>
__device__ void finish(const Call& c, const Stretch& at, const Found<width>* found) {
    const CacheShape& s = c.a.shape;
    __shared__ bool last;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    for (int h = warp; h < at.heads_here; h += warps) {
        float largest = -INFINITY, sum = 0, factor[warps];
#pragma unroll
        for (int w = 0; w < warps; ++w) largest = fmaxf(largest, found[w].largest[h]);
#pragma unroll
        for (int w = 0; w < warps; ++w) {
            factor[w] = exp2_approximate(found[w].largest[h] - largest);  // a block has at least one key
            sum = fmaf(factor[w], found[w].sum[h], sum);
        }
        const std::int64_t part = (at.row * s.query_heads + at.first_head + h) * c.sharing.splits + at.split;
        for (int j = lane; j < width; j += 32) {
            float x = 0;
#pragma unroll
            for (int w = 0; w < warps; ++w) x = fmaf(factor[w], found[w].mixed[h][j], x);
            if (at.splits == 1)
                narrow(x / sum, row_of<T>(c.a.o, at.row)[(at.first_head + h) * width + j]);
            else
                c.mixed[part * width + j] = x;
        }
        if (at.splits > 1 && lane == 0) c.weights[part] = make_float2(largest, sum);
    }
    if (at.splits == 1) return;

    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        // Wraps to zero with the last block.
        unsigned* counter = c.arrived + std::int64_t(at.row) * gridDim.x + blockIdx.x;
        last = atomicInc(counter, unsigned(at.splits - 1)) == unsigned(at.splits - 1);
    }
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int h = warp; h < at.heads_here; h += warps) merge<T, width>(c, at, h, lane);
}

}  // namespace amalgam::kernels::cuda::decode
