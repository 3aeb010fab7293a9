// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_backward_chain.cuh"
#include "kernels/gated_delta_rule/cuda_stage.cuh"

namespace amalgam::kernels {

template <>
void launch_backward_states<64>(const CudaBackwardCall& call, cudaStream_t stream) {
    launch_backward_chain<TokenDecay, 64, 1, 2>(call, stream);
}
template <>
void launch_backward_states<128>(const CudaBackwardCall& call, cudaStream_t stream) {
    if (halves_values(call.forward, call.multiprocessors))
        launch_backward_chain<TokenDecay, 128, 1, 3>(call, stream);
    else
        launch_backward_chain<TokenDecay, 128, 2, 3>(call, stream);
}

}  // namespace amalgam::kernels
