// SPDX-License-Identifier: Apache-2.0
// Kimi Delta Attention as flash-linear-attention has it (Kimi Team, arXiv 2510.26692): a gated delta net with a decay
// for every key channel. q, k, v = SiLU(W x), q and k L2-normalised, beta = sigmoid(W_b x), raw gates a = F_1 F_0 x,
// the rule of kernels/kimi_delta_attention, then RMSNorm per head * sigmoid(G_1 G_0 x + bias), and W_o. F_0 and G_0
// have the rank of a head's dimension. Options: short convolution before the SiLU, a lower bound of the log decays.
#pragma once

#include "mixers/kimi_delta_attention/options.h"
#include "mixers/mixer.h"

namespace amalgam {

const MixerDeclaration& kimi_delta_attention_declaration();

class KimiDeltaAttention : public Mixer {
  public:
    KimiDeltaAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const override;
    std::unique_ptr<MixerCache> make_cache(const CacheSize& size, at::Device device) const override;
    int64_t cache_bytes(int64_t capacity) const override;
    at::Tensor forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                             const CacheChunk& chunk) const override;
    Sum forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                     const CacheStep& step) const override;

  private:
    /// All but what needs a cache: convolve(q | k | v), and the rule, rule(tokens, shape). Input: what projections.h
    /// takes.
    template <class Input, class Convolve, class Rule>
    auto mix(const Input& x, Convolve convolve, Rule rule) const;
    int64_t convolved_channels() const { return convolution_ ? 3 * heads_ * head_dim_ : 0; }

    int64_t heads_, head_dim_;
    KimiDeltaAttentionOptions options_;
    double norm_eps_;
    // Rows of in_: q | k | v | b | f_proj.0 | g_proj.0.
    const Parameter *in_, *decay_up_, *gate_up_, *gate_bias_, *a_log_, *dt_bias_, *norm_, *output_;
    const Parameter* convolution_;  // null where the options leave it out
};

}  // namespace amalgam
