// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_call.cuh"

namespace amalgam::kernels {
namespace {

using namespace hopper;

constexpr int threads = 128;
constexpr int row_halves = 72;  ///< of 64 x 64 matrices in fp16: rows 16-byte aligned, no bank conflicts
constexpr int product_halves = 40;

template <int dim>
struct PrepareShared {
    alignas(1024) char k[dim / 64][tile_bytes];
    alignas(16) float diagonal[4][16][16];  ///< the 16 x 16 blocks of A on the diagonal
    alignas(16) __half A[64][row_halves];   ///< A below them
    alignas(16) __half R[64][row_halves];
    alignas(16) __half product[32][product_halves];
    ChunkScalars scalars;
    float first_half_sum;
};

/// The inverse of block `warp` of I + A on the diagonal: lane l < 16 finds column l by forward substitution.
__device__ void invert_diagonal(const float (&A)[16][16], __half (&R)[64][row_halves], int warp, int lane) {
    if (lane >= 16) {  // zeros to the right of the block, two columns a lane
        for (int column = 16 * (warp + 1) + 2 * (lane - 16); column < 64; column += 32)
            for (int row = 16 * warp; row < 16 * warp + 16; ++row) *reinterpret_cast<uint32_t*>(&R[row][column]) = 0;
        return;
    }
    float x[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
        float sum[2] = {i == lane ? 1.0F : 0.0F, 0.0F};
#pragma unroll
        for (int k = 0; k < i; ++k) sum[k % 2] -= A[i][k] * x[k];
        x[i] = sum[0] + sum[1];
        R[16 * warp + i][16 * warp + lane] = __float2half_rn(x[i]);
    }
}

/// d += X Y for 16 x 16 blocks in fp16; X and Y row-major, d as the two 8-column halves of a 16 x 16 fragment.
__device__ void multiply_blocks(float (&d)[8], const __half* X, int X_row, const __half* Y, int Y_row, int lane) {
    uint32_t a[4], b[4];
    load_matrices(a, shared_address(X + lane % 16 * X_row + lane / 16 * 8));
    load_matrices_transposed(b, shared_address(Y + lane % 16 * Y_row + lane / 16 * 8));
#pragma unroll
    for (int h = 0; h < 2; ++h) {
        float* e = &d[4 * h];
        asm volatile(
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(e[0]), "+f"(e[1]), "+f"(e[2]), "+f"(e[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[2 * h]), "r"(b[2 * h + 1]));
    }
}

__device__ void store_block(__half* out, int row, const float (&d)[8], float sign, int lane) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int h = i / 2, r = i % 2;
        *reinterpret_cast<__half2*>(out + (lane / 4 + 8 * r) * row + 8 * h + lane % 4 * 2) =
            __floats2half2_rn(sign * d[4 * h + 2 * r], sign * d[4 * h + 2 * r + 1]);
    }
}

/// R = (I + A)^-1 from the inverses on its diagonal, by doubling: the block below two inverses X1, X2 is -X2 A21 X1.
template <int dim>
__device__ void merge_blocks(PrepareShared<dim>& shared, int warp, int lane) {
    auto& [k, diagonal, A, R, product, scalars, first_half_sum] = shared;
    if (warp % 2 == 1) {
        const int top = 16 * warp, left = 16 * (warp - 1);
        __half* scratch = &product[left / 2][0];
        float d[8] = {};
        multiply_blocks(d, &A[top][left], row_halves, &R[left][left], row_halves, lane);
        store_block(scratch, product_halves, d, 1.0F, lane);
        __syncwarp();
        float x[8] = {};
        multiply_blocks(x, &R[top][top], row_halves, scratch, product_halves, lane);
        store_block(&R[top][left], row_halves, x, -1.0F, lane);
    }
    __syncthreads();
    const int top = 16 * (warp / 2), left = 16 * (warp % 2);
    float d[8] = {};
    for (int i = 0; i < 32; i += 16) multiply_blocks(d, &A[32 + top][i], row_halves, &R[i][left], row_halves, lane);
    store_block(&product[top][left], product_halves, d, 1.0F, lane);
    __syncthreads();
    float x[8] = {};
    for (int i = 0; i < 32; i += 16)
        multiply_blocks(x, &R[32 + top][32 + i], row_halves, &product[i][left], product_halves, lane);
    store_block(&R[32 + top][left], row_halves, x, -1.0F, lane);
}

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
                *reinterpret_cast<float2*>(&shared.diagonal[warp][row % 16][column % 16]) = make_float2(x, y);
            else if (i / 2 < warp)
                *reinterpret_cast<__half2*>(&shared.A[row][column]) = __floats2half2_rn(x, y);
        }
    }
    __syncwarp();
    invert_diagonal(shared.diagonal[warp], shared.R, warp, lane);
    __syncthreads();
    merge_blocks(shared, warp, lane);
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
            x[j] = *reinterpret_cast<const uint32_t*>(&shared.R[row + j % 2 * 8][column + 8 * (2 * i + j / 2)]);
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
