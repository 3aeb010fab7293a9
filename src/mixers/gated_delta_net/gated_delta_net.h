// SPDX-License-Identifier: Apache-2.0
// The gated delta net as the paper's student layers have it (Yang et al., arXiv 2412.06464; gdn_v1 to gdn_v6 of the
// reference code): q, k, v = SiLU(W x), q and k L2-normalised, beta = sigmoid(W_b x),
// g = -exp(A_log) softplus(W_a x + dt_bias), the gated delta rule, then RMSNorm per head * SiLU(W_g x), and W_o.
// Options: short convolution before the SiLU, no output gate, no output norm, no SiLU, rotary embedding on q and k.
#pragma once

#include "mixers/gated_delta_net/options.h"
#include "mixers/mixer.h"

namespace amalgam {

const MixerDeclaration& gated_delta_net_declaration();

class GatedDeltaNet : public Mixer {
  public:
    GatedDeltaNet(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const override;
    std::unique_ptr<MixerCache> make_cache(const CacheSize& size, at::Device device) const override;
    int64_t cache_bytes(int64_t capacity) const override;
    at::Tensor forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                             const CacheChunk& chunk) const override;
    Sum forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                     const CacheStep& step) const override;

  private:
    /// All but what needs a cache: convolve(q | k | v), turn(q or k [batch, time, heads, dim]), and the rule,
    /// rule(projection, norm, shape). Input: what projections.h takes.
    template <class Input, class Convolve, class Turn, class Rule>
    auto mix(const Input& x, Convolve convolve, Turn turn, Rule rule) const;

    int64_t heads_, head_dim_;
    GatedDeltaNetOptions options_;
    double norm_eps_;
    // Rows of in_proj: q | k | v | g (if gated) | a | b.
    const Parameter *in_, *output_, *a_log_, *dt_bias_;
    const Parameter *norm_, *convolution_;  // null where the options leave them out
};

}  // namespace amalgam
