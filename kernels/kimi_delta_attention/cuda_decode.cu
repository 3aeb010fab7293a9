// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_decode.cuh"
#include "kernels/kimi_delta_attention/cuda_call.cuh"

namespace amalgam::kernels::kimi_delta {
namespace {

template <int dim>
struct ChannelDecay {
    using Call = DecodeCall;
    using Shared = float[dim];
    const float* decays;

    __device__ ChannelDecay(const Call& call, int sequence, int head, Shared& shared) : decays(shared) {
        if (threadIdx.x < 96 || threadIdx.x >= 128) return;  // other warps load q, k and v
        const float rate = expf(call.A_log[head]);
        for (int c = threadIdx.x % 32; c < dim; c += 32) {
            const float a = __bfloat162float(call.a.data[sequence * call.a.stride + head * dim + c]);
            const float z = a + call.dt_bias[head * dim + c];
            shared[c] = expf(call.lower_bound < 0.0F ? call.lower_bound / (1.0F + expf(-rate * z))
                                                     : -rate * (fmaxf(z, 0.0F) + log1pf(expf(-fabsf(z)))));
        }
    }
    __device__ float of(int row) const { return decays[row]; }
};

}  // namespace

template <int dim>
void launch_decode(const DecodeCall& call, int sequences_heads, cudaStream_t stream) {
    launch_decode_kernel<ChannelDecay<dim>, dim>(call, sequences_heads, stream);
}

template void launch_decode<64>(const DecodeCall&, int, cudaStream_t);
template void launch_decode<128>(const DecodeCall&, int, cudaStream_t);

}  // namespace amalgam::kernels::kimi_delta
