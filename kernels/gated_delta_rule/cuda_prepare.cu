// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {
namespace {

using namespace hopper;

constexpr int threads = 128;
constexpr int A_stride = 68;  // floats; rows stay 16-byte aligned
constexpr int R_stride = 72;  // halves

template <int dim>
struct PrepareShared {
    alignas(1024) char k[dim / 64][tile_bytes];
    alignas(16) float A[64][A_stride];
    __half R[64][R_stride];
    ChunkScalars scalars;
    float first_half_sum;
};

/// Column `first + thread` of (I + A)^-1 by forward substitution, the rows above `first` being zero.
template <int first>
__device__ void solve_column(const float (&A)[64][A_stride], int column, __half (&R)[64][R_stride]) {
    float x[64 - first];
#pragma unroll
    for (int i = first; i < 64; ++i) {
        float sum[4] = {i == column ? 1.0F : 0.0F, 0, 0, 0};
#pragma unroll
        for (int k = first; k < i; k += 4) {
            const float4 a = *reinterpret_cast<const float4*>(&A[i][k]);
            const float values[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
            for (int c = 0; c < 4; ++c)
                if (k + c < i) sum[c] -= values[c] * x[k + c - first];
        }
        x[i - first] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        R[i][column] = __float2half_rn(x[i - first]);
    }
#pragma unroll
    for (int i = 0; i < first; ++i) R[i][column] = __half(0);
}

template <int dim>
__global__ void __launch_bounds__(threads) prepare_kernel(const CudaForwardCall call) {
    extern __shared__ __align__(1024) char memory[];
    auto& shared = *reinterpret_cast<PrepareShared<dim>*>(memory);
    const int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
    const int chunk = blockIdx.x, sequence = blockIdx.y / call.heads, head = blockIdx.y % call.heads;
    const int64_t n = int64_t(blockIdx.y) * call.chunks + chunk;
    const int64_t start = int64_t(sequence) * call.time;
    const int first = chunk * chunk_tokens;

    load_tiles<dim, threads>(shared_address(shared.k), call.k, start, head * dim, first, call.time, thread);
    copies_commit();

    if (thread < 64) {
        float g = 0, beta = 0;
        if (first + thread < call.time) {
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
            float2 a;
            a.x = column < row ? factor * shared.scalars.k_factor[column] * d[4 * i + 2 * r] : 0.0F;
            a.y = column + 1 < row ? factor * shared.scalars.k_factor[column + 1] * d[4 * i + 2 * r + 1] : 0.0F;
            *reinterpret_cast<float2*>(&shared.A[row][column]) = a;
        }
    }
    __syncthreads();
    if (warp == 0) solve_column<0>(shared.A, lane, shared.R);
    if (warp == 1) solve_column<32>(shared.A, 32 + lane, shared.R);
    if (warp == 2) {
        float* out = reinterpret_cast<float*>(&call.saved.scalars[n]);
        const float* in = reinterpret_cast<const float*>(&shared.scalars);
        for (int i = lane; i < 3 * 64; i += 32) out[i] = in[i];
    }
    __syncthreads();

    const int row = 16 * warp + lane / 4, column = lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        uint32_t x[4];
#pragma unroll
        for (int j = 0; j < 4; ++j)
            x[j] = *reinterpret_cast<const uint32_t*>(&shared.R[row + j % 2 * 8][column + 8 * (2 * i + j / 2)]);
        call.saved.inverse[n * 512 + i * threads + thread] = make_uint4(x[0], x[1], x[2], x[3]);
    }
}

}  // namespace

template <int dim>
void launch_prepare(const CudaForwardCall& call, cudaStream_t stream) {
    constexpr int bytes = sizeof(PrepareShared<dim>);
    static const cudaError_t set =
        cudaFuncSetAttribute(prepare_kernel<dim>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    (void)set;
    prepare_kernel<dim><<<dim3(call.chunks, call.sequences_heads), threads, bytes, stream>>>(call);
}

template void launch_prepare<64>(const CudaForwardCall&, cudaStream_t);
template void launch_prepare<128>(const CudaForwardCall&, cudaStream_t);

}  // namespace amalgam::kernels
