// SPDX-License-Identifier: Apache-2.0
// Models of one layer for tests that every mixer has to pass.
#pragma once

#include <string>
#include <vector>

#include "mixers/declaration.h"
#include "specification/model_spec.h"

namespace amalgam::test {

struct MixerCase {
    std::string name;
    ModelSpec spec;
};

/// Softmax attention with and without norms of q and k and with a window, and the linear mixers with what they may
/// have. `llama`, `qwen3`: teachers of one layer of these families.
inline std::vector<MixerCase> mixer_cases(const ModelConfig& llama, const ModelConfig& qwen3) {
    ModelConfig windowed = llama;
    windowed.window = {20};
    return {
        {"softmax, grouped heads", {llama, {softmax_mixer}, {}}},
        {"softmax, norms of q and k", {qwen3, {softmax_mixer}, {}}},
        {"softmax, window", {windowed, {softmax_mixer}, {}}},
        {"gated delta net", {llama, {"gated_delta_net"}, {}}},
        {"gated delta net, bare", {llama, {"gated_delta_net"}, {{"output_gate", false}, {"output_norm", false}}}},
        {"gated delta net, convolution", {llama, {"gated_delta_net"}, {{"short_convolution", true}}}},
        {"gated delta net, convolution and rotation",
         {llama, {"gated_delta_net"}, {{"short_convolution", true}, {"rope", true}}}},
        {"gated linear attention", {llama, {"gated_linear_attention"}, {}}},
        {"Kimi delta attention", {llama, {"kimi_delta_attention"}, {{"short_convolution", false}}}},
        {"Kimi delta attention, convolution", {llama, {"kimi_delta_attention"}, {{"short_convolution", true}}}},
    };
}

}  // namespace amalgam::test
