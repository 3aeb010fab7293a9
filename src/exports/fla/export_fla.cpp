// SPDX-License-Identifier: Apache-2.0
#include "exports/fla/export_fla.h"

#include <ATen/ATen.h>

#include "mixers/gated_linear_attention/gated_linear_attention.h"
#include "system/error.h"

namespace amalgam {
namespace {

void refuse_softmax_options(const ModelConfig& c, const std::vector<int64_t>& layers) {
    require(!c.qk_norm, "export fla: softmax layers have q/k norm (fla's hybrid attention has none); try --to qwen3_5");
    require(c.rope.rope_type == "default", "export fla: RoPE scaling \"", c.rope.rope_type,
            "\" (fla has only a theta); try --to qwen3_5");
    require(c.head_dim * c.query_heads == c.hidden_size, "export fla: head_dim ", c.head_dim, " x ", c.query_heads,
            " heads is not hidden_size ", c.hidden_size,
            " (fla's attention derives one from the other); try --to qwen3_5");
    require(!c.output_bias, "export fla: the output projection has a bias (fla's has none); try --to qwen3_5");
    for (int64_t layer : layers)
        require(c.window[size_t(layer)] == 0, "export fla: softmax layer ", layer,
                " has a sliding window (not exported); keep other layers");
}

bool is_gated_linear_attention(const ModelSpec& spec) {
    return linear_mixer(spec.layout) == gated_linear_attention_mixer;
}

void refuse_linear_options(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const bool as_in_fla = is_gated_linear_attention(spec) || (spec.linear.activation && !spec.linear.rope);
    require(spec.linear.output_norm && as_in_fla,
            "export fla: linear layers without output norm, or gated delta nets without SiLU or with rotary embedding, "
            "are not fla's; train another student, or keep the checkpoint");
    require(spec.linear.norm_eps == c.rms_norm_eps, "export fla: the output norm's eps is ", spec.linear.norm_eps,
            " but rms_norm_eps is ", c.rms_norm_eps,
            " (fla has one norm_eps); train with student.output_norm_eps: teacher");
}

void refuse_what_fla_lacks(const ModelSpec& spec) {
    const auto softmax = softmax_layers(spec.layout);
    if (!softmax.empty()) refuse_softmax_options(spec.config, softmax);
    if (softmax.size() < spec.layout.size()) refuse_linear_options(spec);
    require(!spec.config.mlp_bias, "export fla: the MLP has biases (fla has none); keep the checkpoint");
}

/// What only one of fla's models has.
nlohmann::json linear_config(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    if (is_gated_linear_attention(spec)) {
        const double expansion = double(c.query_heads * c.head_dim) / double(c.hidden_size);
        return {{"architectures", {"GLAForCausalLM"}},
                {"model_type", "gla"},
                {"expand_k", expansion},
                {"expand_v", expansion},
                {"num_kv_heads", nullptr},
                {"feature_map", nullptr},
                {"use_output_gate", spec.linear.output_gate},
                {"use_short_conv", false},
                {"clamp_min", nullptr},
                {"elementwise_affine", true}};
    }
    return {{"architectures", {"GatedDeltaNetForCausalLM"}},
            {"model_type", "gated_deltanet"},
            {"expand_v", 1.0},
            {"use_gate", spec.linear.output_gate},
            {"use_short_conv", spec.linear.short_convolution},
            {"allow_neg_eigval", false},
            {"conv_size", spec.linear.convolution_width},
            {"head_dim", c.head_dim},
            {"num_v_heads", nullptr}};
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
    json.update(linear_config(spec));
    const auto layers = softmax_layers(spec.layout);
    if (!layers.empty())
        json["attn"] = {{"layers", layers},       {"num_heads", c.query_heads}, {"num_kv_heads", c.key_value_heads},
                        {"qkv_bias", c.qkv_bias}, {"window_size", nullptr},     {"rope_theta", c.rope.rope_theta}};
    add_special_tokens(json, c);
    return json;
}

void put_gated_linear_attention(ExportFolder& folder, const ModelSpec& spec, int64_t layer) {
    const std::string from = layer_name(layer, "linear_attn."), to = layer_name(layer, "attn.");
    for (const char* name : {"q_proj.weight", "k_proj.weight", "v_proj.weight", "gk_proj.0.weight", "gk_proj.1.weight",
                             "gk_proj.1.bias", "o_proj.weight"})
        folder.copy(from + name, to + name);
    if (spec.linear.output_gate) folder.copy(from + "g_proj.weight", to + "g_proj.weight");
    folder.copy(from + "o_norm.weight", to + (spec.linear.output_gate ? "g_norm_swish_gate.weight" : "g_norm.weight"));
}

void put_gated_delta_net(ExportFolder& folder, const ModelSpec& spec, int64_t layer) {
    const std::string from = layer_name(layer, "linear_attn."), to = layer_name(layer, "attn.");
    std::vector<std::string> names = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "a_proj.weight",
                                      "b_proj.weight", "o_proj.weight", "dt_bias",       "o_norm.weight"};
    if (spec.linear.output_gate) names.push_back("g_proj.weight");
    for (const std::string& name : names) folder.copy(from + name, to + name);
    folder.put(to + "A_log", folder.take(from + "A_log"), /*full_precision=*/true);
    if (!spec.linear.short_convolution) return;
    const auto taps = folder.take(from + "conv1d.weight").unsqueeze(1).chunk(3, 0);
    for (int i = 0; i < 3; ++i) folder.put(to + std::string(1, "qkv"[i]) + "_conv1d.weight", taps[size_t(i)]);
}

void put_softmax(ExportFolder& folder, const ModelConfig& c, int64_t layer) {
    const std::string from = layer_name(layer, "self_attn."), to = layer_name(layer, "attn.");
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        folder.copy(from + name + ".weight", to + name + ".weight");
        if (c.qkv_bias) folder.copy(from + name + ".bias", to + name + ".bias");
    }
    folder.copy(from + "o_proj.weight", to + "o_proj.weight");
}

}  // namespace

void export_fla(ExportFolder& folder, const ModelSpec& spec) {
    refuse_what_fla_lacks(spec);
    const ModelConfig& c = spec.config;
    folder.copy("model.embed_tokens.weight", "model.embeddings.weight");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        if (spec.layout[size_t(layer)] == softmax_mixer)
            put_softmax(folder, c, layer);
        else if (is_gated_linear_attention(spec))
            put_gated_linear_attention(folder, spec, layer);
        else
            put_gated_delta_net(folder, spec, layer);
        folder.copy(layer_name(layer, "input_layernorm.weight"), layer_name(layer, "attn_norm.weight"));
        folder.copy(layer_name(layer, "post_attention_layernorm.weight"), layer_name(layer, "mlp_norm.weight"));
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"})
            folder.copy(layer_name(layer, part), layer_name(layer, part));
    }
    folder.copy("model.norm.weight", "model.norm.weight");
    if (!c.tied_head) folder.copy("lm_head.weight", "lm_head.weight");
    folder.finish(config_of(spec, folder.dtype()));
}

}  // namespace amalgam
