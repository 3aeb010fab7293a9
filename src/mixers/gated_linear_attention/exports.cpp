// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_linear_attention/exports.h"

#include "mixers/gated_linear_attention/options.h"

namespace amalgam {
namespace {

void write_fla(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const GatedLinearAttentionOptions options(spec.options);
    const std::string from = layer_prefix(layer) + "linear_attn.", to = layer_prefix(layer) + "attn.";
    for (const char* name : {"q_proj.weight", "k_proj.weight", "v_proj.weight", "gk_proj.0.weight", "gk_proj.1.weight",
                             "gk_proj.1.bias", "o_proj.weight"})
        folder.copy(from + name, to + name);
    if (options.output_gate) folder.copy(from + "g_proj.weight", to + "g_proj.weight");
    folder.copy(from + "o_norm.weight", to + (options.output_gate ? "g_norm_swish_gate.weight" : "g_norm.weight"));
}

nlohmann::json config_of_fla(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const double expansion = double(c.query_heads * c.head_dim) / double(c.hidden_size);
    return {{"architectures", {"GLAForCausalLM"}},
            {"model_type", "gla"},
            {"expand_k", expansion},
            {"expand_v", expansion},
            {"num_kv_heads", nullptr},
            {"feature_map", nullptr},
            {"use_output_gate", GatedLinearAttentionOptions(spec.options).output_gate},
            {"use_short_conv", false},
            {"clamp_min", nullptr},
            {"elementwise_affine", true}};
}

}  // namespace

std::vector<LayerExport> gated_linear_attention_exports() {
    return {{"fla", write_fla, config_of_fla}};
}

}  // namespace amalgam
