// SPDX-License-Identifier: Apache-2.0
// What is known of gated linear attention without LibTorch (mixers/declaration.h; the formula is in
// gated_linear_attention.h).
#include "mixers/declaration.h"

#include "mixers/gated_linear_attention/options.h"

namespace amalgam {
namespace {

constexpr int64_t decay_rank = 16;  // of the decays' projection

class GatedLinearAttentionDeclaration : public MixerDeclaration {
  public:
    std::string name() const override { return "gated_linear_attention"; }

    std::vector<Option> options() const override {
        const GatedLinearAttentionOptions standard;
        return {{"output_gate", standard.output_gate, "", "SiLU(W_g x) multiplies the normed output"},
                {"output_norm", standard.output_norm, "", "RMSNorm per head on the output"}};
    }

    std::vector<MixerVariant> variants() const override { return {{"gla_v1", {}}}; }

    std::vector<ParameterDeclaration> parameters(const ModelConfig& c, const Options& given) const override {
        const GatedLinearAttentionOptions options(given);
        const int64_t width = c.query_heads * c.head_dim, hidden = c.hidden_size;
        std::vector<ParameterDeclaration> all = query_key_value_projections(c, options.output_gate);
        all.push_back({"linear_attn.gk_proj.0.weight", {decay_rank, hidden}, drawn_as_linear(hidden)});
        all.push_back({"linear_attn.gk_proj.1.weight", {width, decay_rank}, drawn_as_linear(decay_rank)});
        all.push_back({"linear_attn.gk_proj.1.bias", {width}, drawn_as_linear(decay_rank)});
        if (options.output_norm) all.push_back({"linear_attn.o_norm.weight", {c.head_dim}, constant(1.0), true});
        all.push_back({"linear_attn.o_proj.weight", {hidden, width}, Copied{"self_attn.o_proj.weight"}});
        return all;
    }

    /// The rule: h (4 d^2 + 256 d), the chunk form with chunks of 64.
    double flops(const ModelConfig& c, const Options& options, double) const override {
        const double hidden = double(c.hidden_size), heads = double(c.query_heads), dim = double(c.head_dim),
                     width = heads * dim;
        const double matrices = (GatedLinearAttentionOptions(options).output_gate ? 5 : 4) * hidden * width +
                                double(decay_rank) * (hidden + width);
        return 2 * matrices + heads * (4 * dim * dim + 256 * dim);
    }

    /// As a gated delta net, but the logits of the decays instead of the rule's values: as many.
    double kept_numbers(const ModelConfig& c, const Options& options) const override {
        const double width = double(c.query_heads * c.head_dim);
        return width * ((GatedLinearAttentionOptions(options).output_gate ? 6 : 5) + double(c.head_dim) / 64 + 1);
    }

    /// Gradients of the fused projection, of the rule's output and of the decays' logits.
    double gradient_numbers(const ModelConfig& c, const Options& options) const override {
        return (GatedLinearAttentionOptions(options).output_gate ? 7 : 6) * double(c.query_heads * c.head_dim);
    }

    std::optional<std::string> refusal(const std::string& format, const ModelSpec& spec) const override {
        if (format == "qwen3_5")
            return "the linear layers are " + name() + " (Qwen3.5 has gated delta nets only); fla can";
        if (format != "fla") return MixerDeclaration::refusal(format, spec);
        if (!GatedLinearAttentionOptions(spec.options).output_norm)
            return "gated linear attention without output norm is not fla's; train another student, or keep the "
                   "checkpoint";
        return std::nullopt;
    }
};

}  // namespace

const MixerDeclaration& gated_linear_attention_declaration() {
    static const GatedLinearAttentionDeclaration declaration;
    return declaration;
}

}  // namespace amalgam
