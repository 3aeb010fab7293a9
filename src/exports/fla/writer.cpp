// SPDX-License-Identifier: Apache-2.0
// A hybrid as one of flash-linear-attention's models (gated_deltanet, gla), with the softmax layers in the config's
// `attn`. Its attention knows no q/k norm, no RoPE scaling, and only head_dim = hidden / heads.
#include "exports/export_folder.h"

namespace amalgam {
namespace {

/// A model of softmax layers alone is a gated_deltanet without layers of its own.
nlohmann::json config_of_linear_layers(const ModelSpec& spec) {
    ModelSpec linear = spec;
    std::string mixer = linear_mixer(spec.layout);
    if (mixer.empty()) {
        mixer = "gated_delta_net";
        linear.options = default_values(find_mixer(mixer).options());
    }
    return find_layer_export(mixer, "fla").config(linear);
}

nlohmann::json config_of(const ModelSpec& spec, const char* dtype) {
    const ModelConfig& c = spec.config;
    nlohmann::json json = {{"dtype", dtype},
                           {"attn_mode", "chunk"},
                           {"hidden_size", c.hidden_size},
                           {"num_heads", c.query_heads},
                           {"max_position_embeddings", c.max_positions},
                           {"hidden_ratio", nullptr},
                           {"intermediate_size", c.intermediate_size},
                           {"hidden_act", "swish"},
                           {"num_hidden_layers", c.layers},
                           {"norm_eps", c.rms_norm_eps},
                           {"tie_word_embeddings", c.tied_head},
                           {"vocab_size", c.vocabulary_size},
                           {"fuse_norm", true},
                           {"fuse_swiglu", true},
                           {"fuse_cross_entropy", true},
                           {"use_cache", true}};
    json.update(config_of_linear_layers(spec));
    const auto layers = softmax_layers(spec.layout);
    if (!layers.empty())
        json["attn"] = {{"layers", layers},       {"num_heads", c.query_heads}, {"num_kv_heads", c.key_value_heads},
                        {"qkv_bias", c.qkv_bias}, {"window_size", nullptr},     {"rope_theta", c.rope.rope_theta}};
    add_special_tokens(json, c);
    return json;
}

}  // namespace

void write_fla(ExportFolder& folder, const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    folder.copy("model.embed_tokens.weight", "model.embeddings.weight");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string block = layer_prefix(layer);
        find_layer_export(spec.layout[size_t(layer)], "fla").write(folder, spec, layer);
        folder.copy(block + "input_layernorm.weight", block + "attn_norm.weight");
        folder.copy(block + "post_attention_layernorm.weight", block + "mlp_norm.weight");
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"})
            folder.copy(block + part, block + part);
    }
    folder.copy("model.norm.weight", "model.norm.weight");
    if (!c.tied_head) folder.copy("lm_head.weight", "lm_head.weight");
    folder.finish(config_of(spec, folder.dtype()));
}

}  // namespace amalgam
