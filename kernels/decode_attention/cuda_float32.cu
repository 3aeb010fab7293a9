// SPDX-License-Identifier: Apache-2.0
// The attention of float32, for checks: a warp per key, lanes along the width.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/decode_attention/cuda_call.cuh"
#include "kernels/decode_attention/cuda_merge.cuh"

namespace amalgam::kernels::cuda::decode {
namespace {

template <int width>
__global__ void __launch_bounds__(threads) plain_attention_kernel(const __grid_constant__ Call c) {
    constexpr int n = width / 32;
    extern __shared__ __align__(128) char shared[];
    auto* found = reinterpret_cast<Found<width>*>(shared);
    let_next_kernel_start();
    wait_for_earlier_kernels();
    const Stretch at(c);
    if (at.skipped) return;
    const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
    const std::int64_t base = in_cache(c.a.shape, at.slot, at.key_head, 0);
    const auto* keys = static_cast<const float*>(c.a.keys) + base;
    const auto* values = static_cast<const float*>(c.a.values) + base;
    float query[heads][n], mixed[heads][n] = {}, largest[heads], sum[heads] = {};
#pragma unroll
    for (int h = 0; h < heads; ++h) {
        largest[h] = -INFINITY;
        const float* row = row_of<float>(c.a.q, at.row) + std::int64_t(at.first_head + h) * width;
#pragma unroll
        for (int i = 0; i < n; ++i) query[h][i] = h < at.heads_here ? row[32 * i + lane] : 0.0F;
    }
    for (int key = at.begin + warp; key < at.end; key += warps) {
        float k[n], v[n];
#pragma unroll
        for (int i = 0; i < n; ++i) {
            k[i] = keys[std::int64_t(key) * width + 32 * i + lane];
            v[i] = values[std::int64_t(key) * width + 32 * i + lane];
        }
#pragma unroll
        for (int h = 0; h < heads; ++h) {
            float product = 0;
#pragma unroll
            for (int i = 0; i < n; ++i) product = fmaf(query[h][i], k[i], product);
            const float logit = group_sum<32>(product) * c.scale, now = fmaxf(largest[h], logit);
            const float factor = exp2f(largest[h] - now), weight = exp2f(logit - now);
            largest[h] = now;
            sum[h] = fmaf(sum[h], factor, weight);
#pragma unroll
            for (int i = 0; i < n; ++i) mixed[h][i] = fmaf(mixed[h][i], factor, weight * v[i]);
        }
    }
#pragma unroll
    for (int h = 0; h < heads; ++h) {
        if (lane == 0) {
            found[warp].largest[h] = largest[h];
            found[warp].sum[h] = sum[h];
        }
#pragma unroll
        for (int i = 0; i < n; ++i) found[warp].mixed[h][32 * i + lane] = mixed[h][i];
    }
    __syncthreads();
    finish<float, width>(c, at, found);
}

}  // namespace

void attend_float32(const Call& call, dim3 grid, cudaStream_t stream) {
    with_width(call.a.shape.width, [&](auto constant) {
        constexpr int width = decltype(constant)::value;
        launch_early(plain_attention_kernel<width>, grid, threads, int(warps * sizeof(Found<width>)), 1, stream,
                     operation, call);
    });
}

}  // namespace amalgam::kernels::cuda::decode
