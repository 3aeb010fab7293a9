// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_call.cuh"
#include "kernels/gated_delta_rule/cuda_inverse.cuh"

namespace amalgam::kernels {
namespace {

using namespace hopper;

constexpr int threads = 128;

template <int dim>
struct PrepareShared {
    alignas(1024) char k[dim / 64][tile_bytes];
    InverseShared inverse;
    ChunkScalars scalars;
    float first_half_sum;
};

template <int dim>
__global__ void __launch_bounds__(threads) prepare_kernel(const CudaForwardCall call) {
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<PrepareShared<dim>*>(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const auto [n, start, time, first, head] = chunk_of_block(call);
    if (first >= time) return;

    load_tiles<dim, threads>(shared_address(shared.k), call.k, start, head * dim, first, time, thread);
    copies_commit();

    if (thread < 64) {
        float g = 0, beta = 0;
        if (first + thread < time) {
            const int64_t token = start + first + thread;
            const float a = __bfloat162float(call.a.data[token * call.a.stride + head]) + call.dt_bias[head];
            const float b = __bfloat162float(call.b.data[token * call.b.stride + head]);
            g = -expf(call.A_log[head]) * (fmaxf(a, 0.0F) + log1pf(expf(-fabsf(a)))) * 1.44269504F;
            beta = 1.0F / (1.0F + expf(-b));
        }
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const float other = __shfl_up_sync(~0U, g, step);
            if (lane >= step) g += other;
        }
        shared.scalars.log_decay[thread] = g;
        shared.scalars.beta[thread] = beta;
        if (thread == 31) shared.first_half_sum = g;
    }
    copies_wait<0>();
    publish_shared();
    __syncthreads();

    float d[32];
    const uint32_t k = shared_address(shared.k);
    hold(d);
    products_begin();
#pragma unroll
    for (int i = 0; i < dim / 16; ++i)
        product<Lie::as_rows, Lie::as_columns>(d, k + i / 4 * tile_bytes, k + i / 4 * tile_bytes, i % 4, i > 0);
    products_commit();

    if (thread >= 32 && thread < 64) shared.scalars.log_decay[thread] += shared.first_half_sum;
    const float square = row_square<dim>(shared.k[0], thread);
    if (thread % 2 == 0)
        shared.scalars.k_factor[thread / 2] = call.l2_normalize ? rsqrtf(square + normalize_epsilon) : 1.0F;
    products_wait<0>();
    hold(d);
    __syncthreads();

#pragma unroll
    for (int r = 0; r < 2; ++r) {
        const int row = 16 * warp + 8 * r + lane / 4;
        const float factor = shared.scalars.beta[row] * shared.scalars.k_factor[row];
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            const int column = 8 * i + lane % 4 * 2;
            const float x = factor * shared.scalars.k_factor[column] * d[4 * i + 2 * r];
            const float y = factor * shared.scalars.k_factor[column + 1] * d[4 * i + 2 * r + 1];
            if (i / 2 == warp)
                *reinterpret_cast<float2*>(&shared.inverse.diagonal[warp][row % 16][column % 16]) = make_float2(x, y);
            else if (i / 2 < warp)
                *reinterpret_cast<__half2*>(&shared.inverse.A[row][column]) = __floats2half2_rn(x, y);
        }
    }
    __syncwarp();
    invert(shared.inverse, warp, lane, [] { __syncthreads(); });
    {
        float* out = reinterpret_cast<float*>(&call.saved.scalars[n]);
        const float* in = reinterpret_cast<const float*>(&shared.scalars);
        for (int i = thread; i < 3 * 64; i += threads) out[i] = in[i];
    }
    __syncthreads();

    const int row = 16 * warp + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        uint32_t x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
            x[j] = *reinterpret_cast<const uint32_t*>(&shared.inverse.R[row + j % 2 * 8][column + 8 * (2 * i + j / 2)]);
        call.saved.inverse[n * 512 + i * threads + thread] = make_uint4(x[0], x[1], x[2], x[3]);
    }
}

}  // namespace

template <int dim>
void launch_prepare(const CudaForwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(PrepareShared<dim>);
    [[maybe_unused]] static const bool allowed =
        cuda::allow_shared_memory(prepare_kernel<dim>, bytes, "gated delta rule on CUDA");
    prepare_kernel<dim><<<chunk_grid(call), threads, bytes, stream>>>(call);
}

template void launch_prepare<64>(const CudaForwardCall&, cudaStream_t);
template void launch_prepare<128>(const CudaForwardCall&, cudaStream_t);

}  // namespace amalgam::kernels
