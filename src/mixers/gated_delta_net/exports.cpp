// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/exports.h"

#include <ATen/ATen.h>

#include "mixers/first_values.h"
#include "mixers/gated_delta_net/options.h"

namespace amalgam {
namespace {

/// The weight of the norm before the mixer is folded into the projections.
void write_qwen3_5(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const std::string name = layer_prefix(layer) + "linear_attn.";
    const at::Tensor norm = folder.take(layer_prefix(layer) + "input_layernorm.weight");
    const auto projection = [&](const char* part) { return folder.take(name + part) * norm; };
    const int64_t width = spec.config.query_heads * spec.config.head_dim;
    folder.put(name + "in_proj_qkv.weight",
               at::cat({projection("q_proj.weight"), projection("k_proj.weight"), projection("v_proj.weight")}));
    folder.put(name + "in_proj_z.weight", projection("g_proj.weight"));
    folder.put(name + "in_proj_a.weight", projection("a_proj.weight"));
    folder.put(name + "in_proj_b.weight", projection("b_proj.weight"));
    at::Tensor taps;
    if (GatedDeltaNetOptions(spec.options).short_convolution) {
        taps = folder.take(name + "conv1d.weight");
    } else {
        taps = at::zeros({3 * width, short_convolution_taps});
        taps.select(1, short_convolution_taps - 1).fill_(1.0);
    }
    folder.put(name + "conv1d.weight", taps.unsqueeze(1));
    folder.put(name + "A_log", folder.take(name + "A_log"), /*full_precision=*/true);
    folder.put(name + "dt_bias", folder.take(name + "dt_bias"), /*full_precision=*/true);
    folder.put(name + "norm.weight", folder.take(name + "o_norm.weight"), /*full_precision=*/true);
    folder.copy(name + "o_proj.weight", name + "out_proj.weight");
}

void write_fla(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const GatedDeltaNetOptions options(spec.options);
    const std::string from = layer_prefix(layer) + "linear_attn.", to = layer_prefix(layer) + "attn.";
    std::vector<std::string> names = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "a_proj.weight",
                                      "b_proj.weight", "o_proj.weight", "dt_bias",       "o_norm.weight"};
    if (options.output_gate) names.push_back("g_proj.weight");
    for (const std::string& name : names) folder.copy(from + name, to + name);
    folder.put(to + "A_log", folder.take(from + "A_log"), /*full_precision=*/true);
    if (!options.short_convolution) return;
    const auto taps = folder.take(from + "conv1d.weight").unsqueeze(1).chunk(3, 0);
    for (int i = 0; i < 3; ++i) folder.put(to + std::string(1, "qkv"[i]) + "_conv1d.weight", taps[size_t(i)]);
}

nlohmann::json config_of_fla(const ModelSpec& spec) {
    const GatedDeltaNetOptions options(spec.options);
    return {{"architectures", {"GatedDeltaNetForCausalLM"}},
            {"model_type", "gated_deltanet"},
            {"expand_v", 1.0},
            {"use_gate", options.output_gate},
            {"use_short_conv", options.short_convolution},
            {"allow_neg_eigval", false},
            {"conv_size", short_convolution_taps},
            {"head_dim", spec.config.head_dim},
            {"num_v_heads", nullptr}};
}

}  // namespace

std::vector<LayerExport> gated_delta_net_exports() {
    return {{"qwen3_5", write_qwen3_5}, {"fla", write_fla, config_of_fla}};
}

}  // namespace amalgam
