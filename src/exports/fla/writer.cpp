// SPDX-License-Identifier: Apache-2.0
// A hybrid as one of flash-linear-attention's models (gated_deltanet, gla, kda), with the softmax layers in the
// config's `attn`. Its attention knows no q/k norm, no RoPE scaling, and only head_dim = hidden / heads. All its norms
// have one eps: where the student's output norms have another one than the norms of its blocks, the same function is
// written with the residual stream x scaled by s = sqrt(eps of the output norms / eps of the blocks), since s x /
// sqrt(mean((s x)^2) + s^2 eps) = x / sqrt(mean(x^2) + eps).
#include <ATen/ATen.h>

#include <cmath>

#include "exports/export_folder.h"

namespace amalgam {
namespace {

double common_eps(const ModelSpec& spec) {
    return linear_mixer(spec.layout).empty() ? spec.config.rms_norm_eps : spec.output_norm_eps;
}

/// The student with its residual stream scaled.
class ScaledStream : public TensorWriter {
  public:
    ScaledStream(TensorWriter& folder, const ModelSpec& spec)
        : folder_(folder),
          scale_(std::sqrt(common_eps(spec) / spec.config.rms_norm_eps)),
          tied_head_(spec.config.tied_head) {}

    at::Tensor take(const std::string& name) const override {
        const at::Tensor tensor = folder_.take(name);
        if (scale_ == 1.0) return tensor;
        for (const char* added : {"embed_tokens.weight", "o_proj.weight", "down_proj.weight"})
            if (name.ends_with(added)) return tensor * scale_;
        // A tied head is the embedding, scaled.
        return tied_head_ && name == "model.norm.weight" ? tensor / scale_ : tensor;
    }
    void put(const std::string& name, const at::Tensor& tensor, bool full_precision) override {
        folder_.put(name, tensor, full_precision);
    }

  private:
    TensorWriter& folder_;
    double scale_;
    bool tied_head_;
};

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
                           {"norm_eps", common_eps(spec)},
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
    ScaledStream student(folder, spec);
    student.copy("model.embed_tokens.weight", "model.embeddings.weight");
    for (int64_t layer = 0; layer < c.layers; ++layer) {
        const std::string block = layer_prefix(layer);
        find_layer_export(spec.layout[size_t(layer)], "fla").write(student, spec, layer);
        student.copy(block + "input_layernorm.weight", block + "attn_norm.weight");
        student.copy(block + "post_attention_layernorm.weight", block + "mlp_norm.weight");
        for (const char* part : {"mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"})
            student.copy(block + part, block + part);
    }
    student.copy("model.norm.weight", "model.norm.weight");
    if (!c.tied_head) student.copy("lm_head.weight", "lm_head.weight");
    folder.finish(config_of(spec, folder.dtype()));
}

}  // namespace amalgam
