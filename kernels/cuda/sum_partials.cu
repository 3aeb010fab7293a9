// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/norm_rows.cuh"

namespace amalgam::kernels::cuda {
namespace {

constexpr int columns = 32, parts = 16;

// A thread sums every 16th block's value of one column; then the 16 sums are added.
__global__ void __launch_bounds__(columns* parts)
    sum_kernel(const float* partial, int blocks, int width, float* total) {
    __shared__ float of_part[parts][columns];
    const int column = int(blockIdx.x * columns + threadIdx.x);
    float sum = 0;
    if (column < width) {
#pragma unroll 8
        for (int block = int(threadIdx.y); block < blocks; block += parts)
            sum += partial[std::int64_t(block) * width + column];
    }
    of_part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || column >= width) return;
    for (int part = 1; part < parts; ++part) sum += of_part[part][threadIdx.x];
    total[column] = sum;
}

}  // namespace

void sum_partials(const float* partial, std::int64_t blocks, std::int64_t width, float* total, cudaStream_t stream) {
    const auto grid = static_cast<unsigned>((width + columns - 1) / columns);
    sum_kernel<<<grid, dim3(columns, parts), 0, stream>>>(partial, int(blocks), int(width), total);
    check_launch("sum_partials");
}

}  // namespace amalgam::kernels::cuda
