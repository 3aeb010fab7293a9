// SPDX-License-Identifier: Apache-2.0
#include "kernels/kimi_delta_attention/cuda_call.cuh"

namespace amalgam::kernels::kimi_delta {
namespace {

/// Gradients of A_log and dt_bias: one block a head, sums over chunks in a fixed order. Thread (part, channel); the
/// sums of A_log stand behind the channels.
template <int dim>
__global__ void __launch_bounds__(1024)
    sum_gates_kernel(const float* A_log_sums, const float* dt_bias_sums, float* A_log, float* dt_bias, int rows,
                     int heads, int chunks) {
    constexpr int parts = 1024 / dim;
    __shared__ float sums[parts][dim], A_log_parts[1024];
    const int head = blockIdx.x, part = threadIdx.x / dim, channel = threadIdx.x % dim, all = rows * chunks;
    const auto tile = [&](int i) { return (int64_t(i / chunks) * heads + head) * chunks + i % chunks; };
    float sum = 0.0F, A_log_sum = 0.0F;
    for (int i = part; i < all; i += parts) sum += dt_bias_sums[tile(i) * dim + channel];
    for (int i = threadIdx.x; i < all; i += 1024) A_log_sum += A_log_sums[tile(i)];
    sums[part][channel] = sum;
    A_log_parts[threadIdx.x] = A_log_sum;
    __syncthreads();
    if (part == 0) {
        for (int i = 1; i < parts; ++i) sum += sums[i][channel];
        dt_bias[head * dim + channel] = sum;
    }
    for (int half = 512; half > 0; half /= 2) {
        if (threadIdx.x < half) A_log_parts[threadIdx.x] += A_log_parts[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) A_log[head] = A_log_parts[0];
}

}  // namespace

template <int dim>
void launch_sum_gates(const BackwardCall& call, cudaStream_t stream) {
    const ForwardCall& f = call.forward;
    const int rows = static_cast<int>(chunk_grid(f).y) / f.heads;
    sum_gates_kernel<dim><<<f.heads, 1024, 0, stream>>>(call.A_log_sums, call.dt_bias_sums, call.A_log, call.dt_bias,
                                                        rows, f.heads, f.chunks);
}

template void launch_sum_gates<64>(const BackwardCall&, cudaStream_t);
template void launch_sum_gates<128>(const BackwardCall&, cudaStream_t);

}  // namespace amalgam::kernels::kimi_delta
