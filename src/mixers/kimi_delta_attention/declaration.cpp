// SPDX-License-Identifier: Apache-2.0
// What is known of Kimi Delta Attention without LibTorch (mixers/declaration.h; the formula is in
// kimi_delta_attention.h).
#include "mixers/declaration.h"

#include <algorithm>
#include <cmath>

#include "mixers/first_values.h"
#include "mixers/kimi_delta_attention/options.h"

namespace amalgam {
namespace {

/// The decays are those of a gated delta net, whose W_a are the first rows of f_proj.0: channel c of head h takes row
/// h. Heads beyond the rank share rows. The other rows get gradients from the first step on, since f_proj.0 is not zero
/// there: channels part from each other as in a low-rank adapter.
Drawn decay_of_its_head(int64_t rank, int64_t head_dim) {
    return {[=](const RandomStream&, int64_t i) { return i % rank == i / rank / head_dim % rank ? 1.0 : 0.0; }};
}

/// dt_bias of a bounded gate whose A_log is 0: with raw gates of 0 it decays as a gated delta net's softplus does.
Drawn drawn_bounded_bias(int64_t heads, int64_t head_dim, double lower_bound) {
    const Drawn rate = drawn_decay_rate(), step = drawn_step_bias(1);
    return {[=](const RandomStream& random, int64_t i) {
        const int64_t head = i / head_dim;
        const double decay =
            std::exp(rate.value(random, heads + head)) * std::log1p(std::exp(step.value(random, head)));
        const double share = std::max(decay, 1e-4) / -lower_bound;
        return std::log(share / (1.0 - share));
    }};
}

class KimiDeltaAttentionDeclaration : public MixerDeclaration {
  public:
    std::string name() const override { return "kimi_delta_attention"; }

    std::vector<Option> options() const override {
        const KimiDeltaAttentionOptions standard;
        return {
            {"short_convolution", standard.short_convolution, "", "depthwise causal convolution of width 4 on q, k, v"},
            {"lower_bound", standard.lower_bound, "",
             "of the log decays, by a sigmoid (down to -5, which other kernels require); 0: none, by a softplus",
             Range{-5.0, 0.0}},
            {"start", std::string(), "",
             "checkpoint of a gated delta net student without output gate (gdn_v1, gdn_v2) of the same teacher: layers "
             "start from it, computing the same; empty: from the teacher"}};
    }

    std::vector<MixerVariant> variants() const override {
        return {{"kda_v1", {}}, {"kda_v2", {{"lower_bound", -5.0}}}, {"kda_v3", {{"short_convolution", true}}}};
    }

    /// The output gate starts as 1/2 everywhere, which the norm's weight makes up for.
    std::vector<ParameterDeclaration> parameters(const ModelConfig& c, const Options& given) const override {
        const KimiDeltaAttentionOptions options(given);
        const int64_t heads = c.query_heads, rank = c.head_dim, width = heads * c.head_dim, hidden = c.hidden_size;
        const bool bounded = options.lower_bound < 0;
        std::vector<ParameterDeclaration> all = query_key_value_projections(c, /*output_gate=*/false);
        const std::string in = all.front().fused;
        all.push_back({"linear_attn.b_proj.weight", {heads, hidden}, drawn_as_linear(hidden), false, in});
        all.push_back({"linear_attn.f_proj.0.weight", {rank, hidden}, drawn_as_linear(hidden), false, in});
        all.push_back({"linear_attn.g_proj.0.weight", {rank, hidden}, drawn_as_linear(hidden), false, in});
        all.push_back({"linear_attn.f_proj.1.weight", {width, rank}, decay_of_its_head(rank, c.head_dim)});
        all.push_back({"linear_attn.g_proj.1.weight", {width, rank}, constant(0.0)});
        all.push_back({"linear_attn.g_proj.1.bias", {width}, constant(0.0)});
        all.push_back({"linear_attn.A_log", {heads}, bounded ? constant(0.0) : drawn_decay_rate(), true});
        all.push_back(
            {"linear_attn.dt_bias",
             {width},
             bounded ? drawn_bounded_bias(heads, c.head_dim, options.lower_bound) : drawn_step_bias(c.head_dim),
             true});
        all.push_back({"linear_attn.o_norm.weight", {c.head_dim}, constant(2.0), true});
        if (options.short_convolution)
            all.push_back({"linear_attn.conv1d.weight", {3 * width, short_convolution_taps}, identity_taps(), true});
        all.push_back({"linear_attn.o_proj.weight", {hidden, width}, Copied{"self_attn.o_proj.weight"}});
        return all;
    }

    /// The rule: h (6 d^2 + 512 d), the chunk form with chunks of 64.
    double flops(const ModelConfig& c, const Options&, double) const override {
        const double hidden = double(c.hidden_size), heads = double(c.query_heads), dim = double(c.head_dim),
                     width = heads * dim;
        const double matrices = hidden * (4 * width + 2 * dim + heads) + 2 * dim * width;
        return 2 * matrices + heads * (6 * dim * dim + 512 * dim);
    }

    /// q, k, v and the raw gates; the rule's output, normed, and that gated by what is kept too; the low-rank
    /// projections' inner values; and the rule's states, as a gated delta net's.
    double kept_numbers(const ModelConfig& c, const Options&) const override {
        const double dim = double(c.head_dim), width = double(c.query_heads) * dim;
        return width * (8 + dim / 64 + 1) + 2 * dim;
    }

    /// Gradients of the fused projection, of q, k, v among it, of the rule's output and of the raw gates.
    double gradient_numbers(const ModelConfig& c, const Options&) const override {
        return 8 * double(c.query_heads * c.head_dim);
    }

    std::optional<std::string> refusal(const std::string& format, const ModelSpec& spec) const override {
        if (format == "qwen3_5")
            return "the linear layers are " + name() + " (Qwen3.5 has gated delta nets only); fla can";
        return format == "fla" ? std::nullopt : MixerDeclaration::refusal(format, spec);
    }
};

}  // namespace

const MixerDeclaration& kimi_delta_attention_declaration() {
    static const KimiDeltaAttentionDeclaration declaration;
    return declaration;
}

}  // namespace amalgam
