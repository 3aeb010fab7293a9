// SPDX-License-Identifier: Apache-2.0
#include "mixers/kimi_delta_attention/exports.h"

#include <ATen/ATen.h>

#include "mixers/first_values.h"
#include "mixers/kimi_delta_attention/options.h"

namespace amalgam {
namespace {

void write_fla(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const std::string from = layer_prefix(layer) + "linear_attn.", to = layer_prefix(layer) + "attn.";
    for (const char* name :
         {"q_proj.weight", "k_proj.weight", "v_proj.weight", "b_proj.weight", "f_proj.0.weight", "f_proj.1.weight",
          "g_proj.0.weight", "g_proj.1.weight", "g_proj.1.bias", "o_norm.weight", "o_proj.weight"})
        folder.copy(from + name, to + name);
    for (const char* name : {"A_log", "dt_bias"}) folder.put(to + name, folder.take(from + name), true);
    if (!KimiDeltaAttentionOptions(spec.options).short_convolution) return;
    const auto taps = folder.take(from + "conv1d.weight").unsqueeze(1).chunk(3, 0);
    for (int i = 0; i < 3; ++i) folder.put(to + std::string(1, "qkv"[i]) + "_conv1d.weight", taps[size_t(i)]);
}

nlohmann::json config_of_fla(const ModelSpec& spec) {
    const KimiDeltaAttentionOptions options(spec.options);
    const bool bounded = options.lower_bound < 0;
    return {{"architectures", {"KDAForCausalLM"}},
            {"model_type", "kda"},
            {"expand_v", 1.0},
            {"use_short_conv", options.short_convolution},
            {"allow_neg_eigval", false},
            {"safe_gate", bounded},
            {"lower_bound", bounded ? nlohmann::json(options.lower_bound) : nlohmann::json(nullptr)},
            {"conv_size", short_convolution_taps},
            {"head_dim", spec.config.head_dim},
            {"num_v_heads", nullptr}};
}

}  // namespace

std::vector<LayerExport> kimi_delta_attention_exports() {
    return {{"fla", write_fla, config_of_fla}};
}

}  // namespace amalgam
