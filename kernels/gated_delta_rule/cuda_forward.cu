// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_forward_chain.cuh"
#include "kernels/gated_delta_rule/cuda_stage.cuh"

namespace amalgam::kernels {

template <>
void launch_forward<64>(const CudaForwardCall& call, int multiprocessors, cudaStream_t stream) {
    launch_forward_chain<TokenDecay, 64, 1, 3>(call, multiprocessors, stream);
}
template <>
void launch_forward<128>(const CudaForwardCall& call, int multiprocessors, cudaStream_t stream) {
    if (halves_values(call, multiprocessors))
        launch_forward_chain<TokenDecay, 128, 1, 3>(call, multiprocessors, stream);
    else
        launch_forward_chain<TokenDecay, 128, 2, 3>(call, multiprocessors, stream);
}

}  // namespace amalgam::kernels
