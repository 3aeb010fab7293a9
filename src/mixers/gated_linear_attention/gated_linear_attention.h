// SPDX-License-Identifier: Apache-2.0
// Gated linear attention as the paper's gla_v1 and flash-linear-attention have it (Yang et al., arXiv 2312.06635):
// q, k, v = W x, a decay for every key channel, g = log(sigmoid(W_2 W_1 x + b)) / 16 with W_1 of rank 16, the
// recurrence of kernels/gated_linear_attention, then RMSNorm per head * SiLU(W_g x), and W_o. Options: no output gate,
// no output norm. There is no SiLU on q, k, v, no convolution, no rotary embedding.
#pragma once

#include "mixers/gated_linear_attention/options.h"
#include "mixers/mixer.h"

namespace amalgam {

const MixerDeclaration& gated_linear_attention_declaration();

class GatedLinearAttention : public Mixer {
  public:
    GatedLinearAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const override;
    std::unique_ptr<MixerCache> make_cache(const CacheSize& size, at::Device device) const override;
    int64_t cache_bytes(int64_t capacity) const override;
    at::Tensor forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                             const CacheChunk& chunk) const override;
    Sum forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                     const CacheStep& step) const override;

  private:
    /// rule(projection, decay logits, norm, shape) between the projections. Input: what projections.h takes.
    template <class Input, class Rule>
    auto mix(const Input& x, Rule rule) const;

    int64_t heads_, head_dim_;
    GatedLinearAttentionOptions options_;
    double norm_eps_;
    // Rows of in_: q | k | v | g (if gated).
    const Parameter *in_, *decay_down_, *decay_up_, *decay_bias_, *output_;
    const Parameter* norm_;  // null where the options leave it out
};

}  // namespace amalgam
