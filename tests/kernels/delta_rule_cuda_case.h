// SPDX-License-Identifier: Apache-2.0
#pragma once

// A problem of gated_delta_rule_case.h on the GPU, by the functions of a `Cuda`: workspace_bytes, forward,
// scratch_bytes, backward, decode.

#include "device_block.h"
#include "gated_delta_rule_case.h"

namespace amalgam::kernels {

/// Runs the case, in bf16, with `options.l2_normalize`, `silu` and `scale` as they are. With `aligned` the inputs lie
/// in rows that start at multiples of 16 bytes, which saves the kernels a copy.
template <class Cuda, class Case>
NamedValues run_on_cuda(Case& c, bool aligned) {
    const GatedDeltaRuleShape& shape = c.shape;
    const int64_t tokens = shape.batch * shape.time, heads = c.chains();
    const int64_t stride = aligned ? (c.token_width() + 7) / 8 * 8 : c.token_width();
    std::vector<unsigned char> laid(tokens * stride * 2, 0xFF);
    for (int64_t t = 0; t < tokens; ++t)
        std::memcpy(&laid[t * stride * 2], c.fused.bytes().data() + t * c.token_width() * 2, c.token_width() * 2);
    const DeviceBlock fused(laid), A_log(c.A_log), dt_bias(c.dt_bias), initial(c.initial_state), starts(c.starts);
    const DeviceBlock o(tokens * shape.heads * shape.value_dim * 2), final_state(c.initial_state.size() * 4);
    const auto view = [&](char part) { return ConstRows{fused.at(c.offset(part) * 2), stride}; };
    const GatedDeltaRuleInputs inputs{view('q'),
                                      view('k'),
                                      view('v'),
                                      view('a'),
                                      view('b'),
                                      A_log.floats(),
                                      dt_bias.floats(),
                                      c.with_states ? initial.floats() : nullptr,
                                      c.starts.empty() ? nullptr : static_cast<const int64_t*>(starts.data())};
    const DeviceBlock workspace(Cuda::workspace_bytes(shape, c.options, inputs, true));
    Cuda::forward(shape, c.options, inputs, {o.data(), c.with_states ? final_state.floats() : nullptr},
                  workspace.data(), true, nullptr);
    check_cuda(cudaDeviceSynchronize(), "forward");
    std::vector<uint16_t> d_o_bits(tokens * shape.heads * shape.value_dim);
    std::memcpy(d_o_bits.data(), c.output_gradient.bytes().data(), d_o_bits.size() * 2);
    const DeviceBlock d_o(d_o_bits), d_final(c.final_state_gradient), scratch(Cuda::scratch_bytes(shape));
    const DeviceBlock gradient(laid.size()), d_A_log(shape.heads * 4), d_dt_bias(c.dt_bias.size() * 4);
    const DeviceBlock d_initial(c.initial_state.size() * 4);
    const auto writable = [&](char part) { return Rows{gradient.at(c.offset(part) * 2), stride}; };
    Cuda::backward(shape, c.options, inputs, d_o.data(), c.with_states ? d_final.floats() : nullptr, workspace.data(),
                   scratch.data(),
                   {writable('q'), writable('k'), writable('v'), writable('a'), writable('b'), d_A_log.floats(),
                    d_dt_bias.floats(), d_initial.floats()},
                   nullptr);
    check_cuda(cudaDeviceSynchronize(), "backward");
    const std::vector<float> o_values = from_bf16(o.host<uint16_t>());
    const std::vector<float> gradients = from_bf16(gradient.host<uint16_t>());
    NamedValues out;
    for (int64_t index = 0; index < heads; ++index) {
        const int64_t head = index % shape.heads;
        for (int64_t t = c.first_token(index); t < c.end_token(index); ++t)
            for (int64_t i = 0; i < shape.value_dim; ++i)
                out["o"].push_back(o_values[(t * shape.heads + head) * shape.value_dim + i]);
        for (char part : {'q', 'k', 'v', 'a', 'b'})
            for (int64_t t = c.first_token(index); t < c.end_token(index); ++t)
                for (int64_t i = 0; i < c.width(part); ++i)
                    out[std::string("d") + part].push_back(
                        gradients[t * stride + c.offset(part) + head * c.width(part) + i]);
    }
    out["dA_log"] = d_A_log.numbers();
    out["ddt_bias"] = d_dt_bias.numbers();
    out["dinitial_state"] = d_initial.numbers();
    if (c.with_states) out["final_state"] = final_state.numbers();
    return out;
}

/// A case of one token by the decode step: o and final_state. The states lie in slots, in reverse order, behind one
/// that nobody may touch.
template <class Cuda, class Case>
NamedValues run_decode_on_cuda(Case& c) {
    const GatedDeltaRuleShape& shape = c.shape;
    std::vector<unsigned char> laid = c.fused.bytes();
    const SlottedStates slotted(c.initial_state, shape.batch);
    const DeviceBlock fused(laid), A_log(c.A_log), dt_bias(c.dt_bias), state(slotted.states), slot(slotted.slot);
    const DeviceBlock o(shape.batch * shape.heads * shape.value_dim * 2);
    const auto view = [&](char part) { return ConstRows{fused.at(c.offset(part) * 2), c.token_width()}; };
    Cuda::decode(shape, c.options,
                 {view('q'), view('k'), view('v'), view('a'), view('b'), A_log.floats(), dt_bias.floats(), nullptr,
                  nullptr, static_cast<const int32_t*>(slot.data())},
                 state.floats(), o.data(), nullptr);
    check_cuda(cudaDeviceSynchronize(), "decode");
    const std::vector<float> outputs = from_bf16(o.host<uint16_t>()), states = slotted.by_row(state.host<float>());
    return {{"o", {outputs.begin(), outputs.end()}}, {"final_state", {states.begin(), states.end()}}};
}

}  // namespace amalgam::kernels
