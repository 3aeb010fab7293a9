// SPDX-License-Identifier: Apache-2.0
// One token per sequence: the state is read once and written once, which is what the time goes into. A `Decay` has the
// arguments of a call, Decay::Call, and what its threads share, Decay::Shared; constructed by all threads of a block,
// it gives from the next __syncthreads on what each row of the state is multiplied by.
#pragma once

#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/gated_delta_rule/cuda_chunks.cuh"

namespace amalgam::kernels {

constexpr int rows_per_thread = 8;

__device__ inline float silu(float x) {
    return x / (1.0F + expf(-x));
}

__device__ inline float sum_warp(float x) {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(~0U, x, step);
    return x;
}

template <int dim, int parts>
constexpr int decode_threads = dim / 4 / parts*(dim / rows_per_thread);

/// Thread (row group, four columns) of a block for one sequence and head, or for one of `parts` of its columns of V.
template <class Decay, int dim, int parts>
__global__ void __launch_bounds__(decode_threads<dim, parts>, 2048 / decode_threads<dim, parts> / 2)
    decode_kernel(const typename Decay::Call call) {
    cuda::let_next_kernel_start();
    cuda::wait_for_earlier_kernels();
    constexpr int column_threads = dim / 4 / parts, groups = dim / rows_per_thread;
    static_assert(decode_threads<dim, parts> >= 128);  // three warps load q, k and v, the fourth has time for decays
    __shared__ float q[dim], k[dim], v[dim];
    __shared__ float4 sums[groups][column_threads];
    __shared__ typename Decay::Shared decays;
    const int sequence = blockIdx.x / call.heads, head = blockIdx.x % call.heads;
    const int of_block = threadIdx.x % column_threads, group = threadIdx.x / column_threads;
    const int column = blockIdx.y * column_threads + of_block;  // in fours
    const int slot = call.slot != nullptr ? call.slot[sequence] : sequence;
    if (slot < 0) return;
    float4* state = reinterpret_cast<float4*>(call.state + (int64_t(slot) * call.heads + head) * dim * dim) +
                    group * rows_per_thread * (dim / 4) + column;
    float4 S[rows_per_thread];
#pragma unroll
    for (int i = 0; i < rows_per_thread; ++i) S[i] = state[i * (dim / 4)];

    const Decay decay(call, sequence, head, decays);
    const float beta = 1.0F / (1.0F + expf(-__bfloat162float(call.b.data[sequence * call.b.stride + head])));
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp < 3) {
        const DeviceRows in = warp == 0 ? call.q : warp == 1 ? call.k : call.v;
        float* out = warp == 0 ? q : warp == 1 ? k : v;
        const __nv_bfloat16* row = in.data + sequence * in.stride + head * dim;
        float values[dim / 32], square = 0;
#pragma unroll
        for (int i = 0; i < dim / 32; ++i) {
            values[i] = __bfloat162float(row[i * 32 + lane]);
            if (call.silu) values[i] = silu(values[i]);
            square += values[i] * values[i];
        }
        float factor = 1.0F;
        if (call.l2_normalize && warp < 2) factor = rsqrtf(sum_warp(square) + normalize_epsilon);
        if (warp == 0) factor *= call.scale;
#pragma unroll
        for (int i = 0; i < dim / 32; ++i) out[i * 32 + lane] = values[i] * factor;
    }
    __syncthreads();

    const auto sum_groups = [&](float4 part) {
        sums[group][of_block] = part;
        __syncthreads();
        float4 sum = sums[0][of_block];
#pragma unroll
        for (int g = 1; g < groups; ++g) {
            const float4 y = sums[g][of_block];
            sum.x += y.x, sum.y += y.y, sum.z += y.z, sum.w += y.w;
        }
        __syncthreads();
        return sum;
    };
    float4 along = {};
#pragma unroll
    for (int i = 0; i < rows_per_thread; ++i) {
        const float key = k[group * rows_per_thread + i];
        const float kept = decay.of(group * rows_per_thread + i);
        S[i].x *= kept, S[i].y *= kept, S[i].z *= kept, S[i].w *= kept;
        along.x += key * S[i].x, along.y += key * S[i].y, along.z += key * S[i].z, along.w += key * S[i].w;
    }
    along = sum_groups(along);
    const float4 r = {beta * (v[4 * column] - along.x), beta * (v[4 * column + 1] - along.y),
                      beta * (v[4 * column + 2] - along.z), beta * (v[4 * column + 3] - along.w)};
    float4 o = {};
#pragma unroll
    for (int i = 0; i < rows_per_thread; ++i) {
        const float key = k[group * rows_per_thread + i], query = q[group * rows_per_thread + i];
        S[i].x += key * r.x, S[i].y += key * r.y, S[i].z += key * r.z, S[i].w += key * r.w;
        state[i * (dim / 4)] = S[i];
        o.x += query * S[i].x, o.y += query * S[i].y, o.z += query * S[i].z, o.w += query * S[i].w;
    }
    o = sum_groups(o);
    if (group == 0) {
        __nv_bfloat16* out = call.o + int64_t(blockIdx.x) * dim + 4 * column;
        out[0] = __float2bfloat16_rn(o.x), out[1] = __float2bfloat16_rn(o.y);
        out[2] = __float2bfloat16_rn(o.z), out[3] = __float2bfloat16_rn(o.w);
    }
}

template <class Decay, int dim>
void launch_decode_kernel(const typename Decay::Call& call, int sequences_heads, cudaStream_t stream) {
    constexpr int parts = dim == 128 ? 4 : 1;
    if (sequences_heads < 64)  // too few blocks to have much of the memory's speed
        cuda::launch_early(decode_kernel<Decay, dim, parts>, dim3(sequences_heads, parts), decode_threads<dim, parts>,
                           0, 1, stream, "decode", call);
    else
        cuda::launch_early(decode_kernel<Decay, dim, 1>, dim3(sequences_heads), decode_threads<dim, 1>, 0, 1, stream,
                           "decode", call);
}

}  // namespace amalgam::kernels
