// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_backward_chain.cuh"
#include "kernels/kimi_delta_attention/cuda_stage.cuh"

namespace amalgam::kernels::kimi_delta {

template <>
void launch_backward_states<64>(const BackwardCall& call, cudaStream_t stream) {
    launch_backward_chain<ChannelDecay, 64, 1, 2>(call, stream);
}
template <>
void launch_backward_states<128>(const BackwardCall& call, cudaStream_t stream) {
    if (halves_values(call.forward, call.multiprocessors))
        launch_backward_chain<ChannelDecay, 128, 1, 2>(call, stream);
    else
        launch_backward_chain<ChannelDecay, 128, 2, 2>(call, stream);
}

}  // namespace amalgam::kernels::kimi_delta
