// SPDX-License-Identifier: Apache-2.0
#include "mixers/mixer.h"

#include "mixers/gated_delta_net/gated_delta_net.h"
#include "mixers/gated_linear_attention/gated_linear_attention.h"
#include "mixers/softmax_attention/softmax_attention.h"
#include "system/error.h"

namespace amalgam {

std::unique_ptr<Mixer> make_mixer(const std::string& name, const ModelSpec& spec, int64_t layer,
                                  ParameterStore& store) {
    if (name == softmax_mixer) return std::make_unique<SoftmaxAttention>(spec, layer, store);
    if (name == gated_delta_net_mixer) return std::make_unique<GatedDeltaNet>(spec, layer, store);
    if (name == gated_linear_attention_mixer) return std::make_unique<GatedLinearAttention>(spec, layer, store);
    throw Error(text("mixer \"", name, "\" of layer ", layer, " is not known (known: ", softmax_mixer, ", ",
                     gated_delta_net_mixer, ", ", gated_linear_attention_mixer, ")"),
                ExitCode::bad_input);
}

}  // namespace amalgam
