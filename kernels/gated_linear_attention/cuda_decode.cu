// SPDX-License-Identifier: Apache-2.0
// One token per sequence: the state is read once and written once, which is what the time goes into.
#include "kernels/cuda/dependent_launch.cuh"
#include "kernels/gated_linear_attention/cuda_call.cuh"

namespace amalgam::kernels::linear_attention {
namespace {

constexpr int rows_per_thread = 8;
constexpr float log2_e = 1.44269504F;

template <int dim, int parts>
constexpr int decode_threads = dim / 4 / parts*(dim / rows_per_thread);

/// Thread (row group, four columns) of a block for one sequence and head, or for one of `parts` of its columns of V.
template <int dim, int parts>
__global__ void __launch_bounds__(decode_threads<dim, parts>, 2048 / decode_threads<dim, parts> / 2)
    decode_kernel(const DecodeCall call) {
    cuda::let_next_kernel_start();
    cuda::wait_for_earlier_kernels();
    constexpr int column_threads = dim / 4 / parts, groups = dim / rows_per_thread;
    constexpr int threads = decode_threads<dim, parts>;
    __shared__ float q[dim], k[dim], decay[dim];
    __shared__ float4 sums[groups][column_threads];
    const int sequence = blockIdx.x / call.heads, head = blockIdx.x % call.heads;
    const int slot = call.slot != nullptr ? call.slot[sequence] : sequence;
    if (slot < 0) return;
    const int of_block = threadIdx.x % column_threads, group = threadIdx.x / column_threads;
    const int column = blockIdx.y * column_threads + of_block;  // in fours
    float4* state = reinterpret_cast<float4*>(call.state + (int64_t(slot) * call.heads + head) * dim * dim) +
                    group * rows_per_thread * (dim / 4) + column;
    float4 S[rows_per_thread];
#pragma unroll
    for (int i = 0; i < rows_per_thread; ++i) S[i] = state[i * (dim / 4)];

    const auto element = [&](const DeviceRows& rows, int i) {
        return __bfloat162float(rows.data[sequence * rows.stride + head * dim + i]);
    };
    for (int i = threadIdx.x; i < dim; i += threads) {
        q[i] = element(call.q, i) * call.scale;
        k[i] = element(call.k, i);
        const float x = element(call.gate, i);
        decay[i] = exp2f((fminf(x, 0.0F) - log1pf(expf(-fabsf(x)))) * (log2_e * call.gate_factor));
    }
    const float4 v = {element(call.v, 4 * column), element(call.v, 4 * column + 1), element(call.v, 4 * column + 2),
                      element(call.v, 4 * column + 3)};
    __syncthreads();

    float4 o = {};
#pragma unroll
    for (int i = 0; i < rows_per_thread; ++i) {
        const int row = group * rows_per_thread + i;
        const float key = k[row], query = q[row], kept = decay[row];
        S[i] = {fmaf(kept, S[i].x, key * v.x), fmaf(kept, S[i].y, key * v.y), fmaf(kept, S[i].z, key * v.z),
                fmaf(kept, S[i].w, key * v.w)};
        state[i * (dim / 4)] = S[i];
        o.x += query * S[i].x, o.y += query * S[i].y, o.z += query * S[i].z, o.w += query * S[i].w;
    }
    sums[group][of_block] = o;
    __syncthreads();
    if (group != 0) return;
#pragma unroll
    for (int g = 1; g < groups; ++g) {
        const float4 y = sums[g][of_block];
        o.x += y.x, o.y += y.y, o.z += y.z, o.w += y.w;
    }
    __nv_bfloat16* out = call.o + int64_t(blockIdx.x) * dim + 4 * column;
    out[0] = __float2bfloat16_rn(o.x), out[1] = __float2bfloat16_rn(o.y);
    out[2] = __float2bfloat16_rn(o.z), out[3] = __float2bfloat16_rn(o.w);
}

}  // namespace

template <int dim>
void launch_decode(const DecodeCall& call, int sequences_heads, cudaStream_t stream) {
    constexpr int parts = dim == 128 ? 4 : 1;
    if (sequences_heads < 64)  // too few blocks to have much of the memory's speed
        cuda::launch_early(decode_kernel<dim, parts>, dim3(sequences_heads, parts), decode_threads<dim, parts>, 0, 1,
                           stream, "gated_linear_attention: decode", call);
    else
        cuda::launch_early(decode_kernel<dim, 1>, dim3(sequences_heads), decode_threads<dim, 1>, 0, 1, stream,
                           "gated_linear_attention: decode", call);
}

template void launch_decode<64>(const DecodeCall&, int, cudaStream_t);
template void launch_decode<128>(const DecodeCall&, int, cudaStream_t);

}  // namespace amalgam::kernels::linear_attention
