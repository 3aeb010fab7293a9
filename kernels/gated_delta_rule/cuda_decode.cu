// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_call.cuh"
#include "kernels/gated_delta_rule/cuda_decode.cuh"

namespace amalgam::kernels {
namespace {

struct TokenDecay {
    using Call = CudaDecodeCall;
    struct Shared {};
    float decay;

    __device__ TokenDecay(const Call& call, int sequence, int head, Shared&) {
        const float x = __bfloat162float(call.a.data[sequence * call.a.stride + head]) + call.dt_bias[head];
        decay = expf(-expf(call.A_log[head]) * (fmaxf(x, 0.0F) + log1pf(expf(-fabsf(x)))));
    }
    __device__ float of(int) const { return decay; }
};

}  // namespace

template <int dim>
void launch_decode(const CudaDecodeCall& call, int sequences_heads, cudaStream_t stream) {
    launch_decode_kernel<TokenDecay, dim>(call, sequences_heads, stream);
}

template void launch_decode<64>(const CudaDecodeCall&, int, cudaStream_t);
template void launch_decode<128>(const CudaDecodeCall&, int, cudaStream_t);

}  // namespace amalgam::kernels
