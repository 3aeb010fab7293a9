// SPDX-License-Identifier: Apache-2.0
// A hybrid of any teacher family as transformers' Qwen3_5ForCausalLM (model_type qwen3_5_text), exactly. Its block
// norms are stored minus one, which loses bits in bf16: they are folded into the projections instead. The mixers'
// exports say how their layers take its form.
#include <ATen/ATen.h>

#include "exports/export_folder.h"

namespace amalgam {
namespace {

nlohmann::json rope_parameters(const ModelConfig& c) {
    const RopeConfig& r = c.rope;
    nlohmann::json json = {{"rope_type", r.rope_type}, {"rope_theta", r.rope_theta}, {"partial_rotary_factor", 1.0}};
    // Text has one position per token: any split of the channels over the three position axes gives the same rotation.
    const int64_t half = c.head_dim / 2, section = half / 3;
    json["mrope_section"] = {half - 2 * section, section, section};
    json["mrope_interleaved"] = true;
    if (r.rope_type == "default") return json;
    json["factor"] = r.factor;
    if (r.rope_type == "llama3" || r.rope_type == "yarn")
        json["original_max_position_embeddings"] = r.original_max_position_embeddings;
    if (r.rope_type == "llama3") {
        json["low_freq_factor"] = r.low_freq_factor;
        json["high_freq_factor"] = r.high_freq_factor;
    }
    if (r.rope_type == "yarn") {
        json["beta_fast"] = r.beta_fast;
        json["beta_slow"] = r.beta_slow;
        json["truncate"] = r.truncate;
        if (r.attention_factor > 0.0) json["attention_factor"] = r.attention_factor;
        if (r.mscale > 0.0) json["mscale"] = r.mscale;
        if (r.mscale_all_dim > 0.0) json["mscale_all_dim"] = r.mscale_all_dim;
    }
    return json;
}

nlohmann::json config_of(const ModelSpec& spec, const char* dtype) {
    const ModelConfig& c = spec.config;
    std::vector<std::string> types;
    for (const std::string& mixer : spec.layout)
        types.push_back(find_mixer(mixer).is_linear() ? "linear_attention" : "full_attention");
    nlohmann::json json = {{"architectures", {"Qwen3_5ForCausalLM"}},
                           {"model_type", "qwen3_5_text"},
                           {"dtype", dtype},
                           {"hidden_size", c.hidden_size},
                           {"intermediate_size", c.intermediate_size},
                           {"num_hidden_layers", c.layers},
                           {"num_attention_heads", c.query_heads},
                           {"num_key_value_heads", c.key_value_heads},
                           {"head_dim", c.head_dim},
                           {"vocab_size", c.vocabulary_size},
                           {"max_position_embeddings", c.max_positions},
                           {"hidden_act", "silu"},
                           {"rms_norm_eps", c.rms_norm_eps},
                           {"attention_bias", c.qkv_bias || c.output_bias},
                           {"attention_dropout", 0.0},
                           {"tie_word_embeddings", c.tied_head},
                           {"linear_conv_kernel_dim", 4},
                           {"linear_key_head_dim", c.head_dim},
                           {"linear_value_head_dim", c.head_dim},
                           {"linear_num_key_heads", c.query_heads},
                           {"linear_num_value_heads", c.query_heads},
                           {"layer_types", types},
                           {"rope_parameters", rope_parameters(c)},
                           // transformers counts the cached tokens in a softmax layer and stops if there is none.
                           {"use_cache", !softmax_layers(spec.layout).empty()}};
    add_special_tokens(json, c);
    return json;
}

}  // namespace

void write_qwen3_5(ExportFolder& folder, const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const at::Tensor nothing = at::zeros({c.hidden_size});
    folder.copy("model.embed_tokens.weight", "model.embed_tokens.weight");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string block = layer_prefix(layer), mlp_norm = block + "post_attention_layernorm.weight";
        find_layer_export(spec.layout[size_t(layer)], "qwen3_5").write(folder, spec, layer);
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight"})
            folder.put(block + part, folder.take(block + part) * folder.take(mlp_norm));
        folder.copy(block + "mlp.down_proj.weight", block + "mlp.down_proj.weight");
        folder.put(block + "input_layernorm.weight", nothing);
        folder.put(mlp_norm, nothing);
    }
    if (c.tied_head) {  // folding would change the embedding; in fp32, since the subtraction costs bits in bf16
        folder.put("model.norm.weight", folder.take("model.norm.weight") - 1.0, /*full_precision=*/true);
    } else {
        folder.put("lm_head.weight", folder.take("lm_head.weight") * folder.take("model.norm.weight"));
        folder.put("model.norm.weight", nothing);
    }
    folder.finish(config_of(spec, folder.dtype()));
}

}  // namespace amalgam
