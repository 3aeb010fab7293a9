// SPDX-License-Identifier: Apache-2.0
// What is known of softmax attention without LibTorch (mixers/declaration.h). A h d = A; s: sequence length.
#include "mixers/declaration.h"

#include "system/error.h"

namespace amalgam {
namespace {

class SoftmaxAttentionDeclaration : public MixerDeclaration {
  public:
    std::string name() const override { return softmax_mixer; }
    bool is_linear() const override { return false; }

    std::vector<ParameterDeclaration> parameters(const ModelConfig& c, const Options&) const override {
        const int64_t query = c.query_heads * c.head_dim, key_value = c.key_value_heads * c.head_dim;
        std::vector<ParameterDeclaration> all;
        const auto add = [&](const std::string& part, std::vector<int64_t> shape, const std::string& fused = "",
                             bool full_precision = false) {
            const std::string name = "self_attn." + part;
            all.push_back(
                {name, std::move(shape), Copied{name}, full_precision, fused.empty() ? "" : "self_attn." + fused});
        };
        add("q_proj.weight", {query, c.hidden_size}, "qkv_proj.weight");
        add("k_proj.weight", {key_value, c.hidden_size}, "qkv_proj.weight");
        add("v_proj.weight", {key_value, c.hidden_size}, "qkv_proj.weight");
        if (c.qkv_bias) {
            add("q_proj.bias", {query}, "qkv_proj.bias");
            add("k_proj.bias", {key_value}, "qkv_proj.bias");
            add("v_proj.bias", {key_value}, "qkv_proj.bias");
        }
        add("o_proj.weight", {c.hidden_size, query});
        if (c.output_bias) add("o_proj.bias", {c.hidden_size});
        if (c.qk_norm) {
            add("q_norm.weight", {c.head_dim}, "", true);
            add("k_norm.weight", {c.head_dim}, "", true);
        }
        return all;
    }

    /// 2 A s: Q K^T and P V over the s / 2 positions before a token in the mean.
    double flops(const ModelConfig& c, const Options&, double length) const override {
        const double query = double(c.query_heads * c.head_dim), key_value = double(c.key_value_heads * c.head_dim);
        const double matrices = 2 * double(c.hidden_size) * (query + key_value);
        return 2 * matrices + 2 * query * length;
    }

    /// The fused projection, rotated q and k, the output.
    double kept_numbers(const ModelConfig& c, const Options&) const override {
        return double(3 * c.query_heads * c.head_dim + 3 * c.key_value_heads * c.head_dim);
    }

    /// Gradients of the fused projection and of the output.
    double gradient_numbers(const ModelConfig& c, const Options&) const override {
        return double(2 * c.query_heads * c.head_dim + 2 * c.key_value_heads * c.head_dim);
    }

    std::optional<std::string> refusal(const std::string& format, const ModelSpec& spec) const override {
        const ModelConfig& c = spec.config;
        if (format == "fla") {
            if (c.qk_norm) return "softmax layers have q/k norm (fla's hybrid attention has none); qwen3_5 can";
            if (c.rope.rope_type != "default")
                return text("RoPE scaling \"", c.rope.rope_type, "\" (fla has only a theta); qwen3_5 can");
            if (c.head_dim * c.query_heads != c.hidden_size)
                return text("head_dim ", c.head_dim, " x ", c.query_heads, " heads is not hidden_size ", c.hidden_size,
                            " (fla's attention derives one from the other); qwen3_5 can");
            if (c.output_bias) return "the output projection has a bias (fla's has none); qwen3_5 can";
        } else if (format == "qwen3_5") {
            if (!c.qk_norm && c.rms_norm_eps < 1e-30)
                return text(
                    "rms_norm_eps is ", c.rms_norm_eps,
                    " (the norm that Qwen3.5 puts on queries and keys can be made neutral only beside an eps of "
                    "1e-30 or more); write another format");
        } else {
            return MixerDeclaration::refusal(format, spec);
        }
        for (const int64_t layer : softmax_layers(spec.layout))
            if (const int64_t window = c.window.at(size_t(layer)); window > 0)
                return text("softmax layer ", layer, " has a sliding window of ", window,
                            " tokens (not exported); keep other layers, or set use_sliding_window to false in the "
                            "teacher's config.json before the run");
        return std::nullopt;
    }
};

}  // namespace

const MixerDeclaration& softmax_attention_declaration() {
    static const SoftmaxAttentionDeclaration declaration;
    return declaration;
}

}  // namespace amalgam
