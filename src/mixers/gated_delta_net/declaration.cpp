// SPDX-License-Identifier: Apache-2.0
// What is known of the gated delta net without LibTorch (mixers/declaration.h; the formula is in gated_delta_net.h).
#include "mixers/declaration.h"

#include "mixers/first_values.h"
#include "mixers/gated_delta_net/options.h"
#include "system/error.h"

namespace amalgam {
namespace {

class GatedDeltaNetDeclaration : public MixerDeclaration {
  public:
    std::string name() const override { return "gated_delta_net"; }

    std::vector<Option> options() const override {
        const GatedDeltaNetOptions standard;
        return {
            {"short_convolution", standard.short_convolution, "", "depthwise causal convolution of width 4 on q, k, v"},
            {"output_gate", standard.output_gate, "", "SiLU(W_g x) multiplies the normed output"},
            {"output_norm", standard.output_norm, "", "RMSNorm per head on the output"},
            {"activation", standard.activation, "", "SiLU on q, k, v"},
            {"rope", standard.rope, "", "rotary embedding on q and k of the linear layers"}};
    }

    std::vector<MixerVariant> variants() const override {
        return {{"gdn_v1", {{"short_convolution", true}, {"output_gate", false}}},
                {"gdn_v2", {{"output_gate", false}}},
                {"gdn_v3", {{"short_convolution", true}}},
                {"gdn_v4", {}},
                {"gdn_v6", {{"output_gate", false}, {"output_norm", false}, {"activation", false}}}};
    }

    std::map<std::string, std::string> variants_not_offered() const override {
        return {{"gdn_v5", "gdn_v5 (two-factor key and value projections) is not offered"}};
    }

    std::vector<ParameterDeclaration> parameters(const ModelConfig& c, const Options& given) const override {
        const GatedDeltaNetOptions options(given);
        const int64_t heads = c.query_heads, width = heads * c.head_dim, hidden = c.hidden_size;
        std::vector<ParameterDeclaration> all = query_key_value_projections(c, options.output_gate);
        const std::string in = all.front().fused;
        all.push_back({"linear_attn.a_proj.weight", {heads, hidden}, drawn_as_linear(hidden), false, in});
        all.push_back({"linear_attn.b_proj.weight", {heads, hidden}, drawn_as_linear(hidden), false, in});
        all.push_back({"linear_attn.A_log", {heads}, drawn_decay_rate(), true});
        all.push_back({"linear_attn.dt_bias", {heads}, drawn_step_bias(1), true});
        if (options.output_norm) all.push_back({"linear_attn.o_norm.weight", {c.head_dim}, constant(1.0), true});
        if (options.short_convolution)
            all.push_back({"linear_attn.conv1d.weight", {3 * width, short_convolution_taps}, identity_taps(), true});
        all.push_back({"linear_attn.o_proj.weight", {hidden, width}, Copied{"self_attn.o_proj.weight"}});
        return all;
    }

    /// The rule: h (6 d^2 + 512 d), the chunk form with chunks of 64.
    double flops(const ModelConfig& c, const Options& options, double) const override {
        const double hidden = double(c.hidden_size), heads = double(c.query_heads), dim = double(c.head_dim);
        const double matrices =
            (GatedDeltaNetOptions(options).output_gate ? 5 : 4) * hidden * heads * dim + 2 * hidden * heads;
        return 2 * matrices + heads * (6 * dim * dim + 512 * dim);
    }

    /// q, k, v, gate; the rule's output, normed; and the rule's states, d x d numbers and 64 values for every 64 tokens
    /// of a head.
    double kept_numbers(const ModelConfig& c, const Options& options) const override {
        const double width = double(c.query_heads * c.head_dim);
        return width * ((GatedDeltaNetOptions(options).output_gate ? 6 : 5) + double(c.head_dim) / 64 + 1);
    }

    /// Gradients of the fused projection and of the rule's output.
    double gradient_numbers(const ModelConfig& c, const Options& options) const override {
        return (GatedDeltaNetOptions(options).output_gate ? 6 : 5) * double(c.query_heads * c.head_dim);
    }

    std::optional<std::string> refusal(const std::string& format, const ModelSpec& spec) const override {
        const GatedDeltaNetOptions options(spec.options);
        if (format == "qwen3_5") return refusal_of_qwen3_5(options);
        if (format == "fla" && (!options.output_norm || !options.activation || options.rope))
            return "gated delta nets without output norm, without SiLU or with rotary embedding are not fla's; train "
                   "another student, or keep the checkpoint";
        return format == "fla" ? std::nullopt : MixerDeclaration::refusal(format, spec);
    }

  private:
    static std::optional<std::string> refusal_of_qwen3_5(const GatedDeltaNetOptions& options) {
        const std::string instead = "; train another student, or keep the checkpoint";
        if (!options.output_norm) return "the student has no output norm (Qwen3.5 always has one)" + instead;
        if (!options.output_gate) return "the student has no output gate (Qwen3.5 always has one); fla can";
        if (!options.activation) return "the student has no SiLU on q, k, v (Qwen3.5 always has it)" + instead;
        if (options.rope) return "the linear layers use rotary embedding (Qwen3.5 has none there)" + instead;
        return std::nullopt;
    }
};

}  // namespace

const MixerDeclaration& gated_delta_net_declaration() {
    static const GatedDeltaNetDeclaration declaration;
    return declaration;
}

}  // namespace amalgam
