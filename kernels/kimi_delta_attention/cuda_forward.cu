// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/cuda_forward_chain.cuh"
#include "kernels/kimi_delta_attention/cuda_stage.cuh"

namespace amalgam::kernels::kimi_delta {

template <>
void launch_forward<64>(const ForwardCall& call, int multiprocessors, cudaStream_t stream) {
    launch_forward_chain<ChannelDecay, 64, 1, 2>(call, multiprocessors, stream);
}
template <>
void launch_forward<128>(const ForwardCall& call, int multiprocessors, cudaStream_t stream) {
    if (halves_values(call, multiprocessors))
        launch_forward_chain<ChannelDecay, 128, 1, 2>(call, multiprocessors, stream);
    else
        launch_forward_chain<ChannelDecay, 128, 2, 2>(call, multiprocessors, stream);
}

}  // namespace amalgam::kernels::kimi_delta
