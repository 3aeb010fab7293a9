// SPDX-License-Identifier: Apache-2.0
#pragma once

// A problem of gated_linear_attention_case.h on the GPU, in bf16.

#include "device_block.h"
#include "gated_linear_attention_case.h"

namespace amalgam::kernels {

inline NamedValues run_cuda(const GatedLinearAttentionCase& c) {
    const int64_t width = c.width(), stride = c.stride();
    const DeviceBlock inputs(c.fused.bytes()), gates(c.gate.bytes()), d_o(c.output_gradient.bytes());
    const DeviceBlock initial(c.initial_state), d_final(c.final_state_gradient);
    const DeviceBlock o(c.tokens() * width * 2), final_state(c.initial_state.size() * 4);
    const DeviceBlock gradient(c.tokens() * stride * 2), d_gate(c.tokens() * width * 2);
    const DeviceBlock d_initial(c.initial_state.size() * 4);
    const DeviceBlock states(cuda::gated_linear_attention_states_bytes(c.shape));
    const DeviceBlock scratch(cuda::gated_linear_attention_states_bytes(c.shape));
    const auto view = [&](int part) { return ConstRows{inputs.at(part * width * 2), stride}; };
    const auto written = [&](int part) { return Rows{gradient.at(part * width * 2), stride}; };
    const GatedLinearAttentionInputs in{
        view(0), view(1), view(2), {gates.data(), width}, c.with_states ? initial.floats() : nullptr};
    cuda::gated_linear_attention_forward(
        c.shape, c.options, in, {o.data(), c.with_states ? final_state.floats() : nullptr}, states.data(), nullptr);
    check_cuda(cudaDeviceSynchronize(), "forward");
    cuda::gated_linear_attention_backward(
        c.shape, c.options, in, d_o.data(), c.with_states ? d_final.floats() : nullptr, states.data(), scratch.data(),
        {written(0), written(1), written(2), {d_gate.data(), width}, d_initial.floats()}, nullptr);
    check_cuda(cudaDeviceSynchronize(), "backward");

    NamedValues out;
    const auto keep_rows = [&](const char* name, const DeviceBlock& block, int64_t from_stride, int64_t column) {
        const std::vector<float> x = from_bf16(block.host<uint16_t>());
        c.collect(
            out, name, [&](int64_t i) { return x[i]; }, from_stride, column, c.shape.key_dim);
    };
    keep_rows("o", o, width, 0);
    keep_rows("dq", gradient, stride, 0);
    keep_rows("dk", gradient, stride, width);
    keep_rows("dv", gradient, stride, 2 * width);
    keep_rows("dgate", d_gate, width, 0);
    out["dinitial_state"] = d_initial.numbers();
    if (c.with_states) out["final_state"] = final_state.numbers();
    return out;
}

/// A case of one token by the decode step: o and final_state (SlottedStates).
inline NamedValues run_cuda_decode(const GatedLinearAttentionCase& c) {
    const int64_t width = c.width(), stride = c.stride();
    const SlottedStates slotted(c.initial_state, c.shape.batch);
    const DeviceBlock inputs(c.fused.bytes()), gates(c.gate.bytes()), state(slotted.states), slot(slotted.slot);
    const DeviceBlock o(c.tokens() * width * 2);
    const auto view = [&](int part) { return ConstRows{inputs.at(part * width * 2), stride}; };
    const GatedLinearAttentionInputs in{
        view(0), view(1), view(2), {gates.data(), width}, nullptr, static_cast<const int32_t*>(slot.data())};
    cuda::gated_linear_attention_decode(c.shape, c.options, in, state.floats(), o.data(), nullptr);
    check_cuda(cudaDeviceSynchronize(), "decode");
    const std::vector<float> outputs = from_bf16(o.host<uint16_t>()), states = slotted.by_row(state.host<float>());
    return {{"o", {outputs.begin(), outputs.end()}}, {"final_state", {states.begin(), states.end()}}};
}

}  // namespace amalgam::kernels
