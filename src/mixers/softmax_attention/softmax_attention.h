// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention of the teachers: grouped-query, with optional biases, per-head q/k norm (Qwen3) and sliding
// window.
#pragma once

#include "mixers/mixer.h"
#include "mixers/softmax_attention/key_value_cache.h"

namespace amalgam {

const MixerDeclaration& softmax_attention_declaration();

class SoftmaxAttention : public Mixer {
  public:
    SoftmaxAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const override;
    std::unique_ptr<MixerCache> make_cache(const CacheSize& size, at::Device device) const override;
    int64_t cache_bytes(int64_t capacity) const override;
    at::Tensor forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                             const CacheChunk& chunk) const override;
    Sum forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                     const CacheStep& step) const override;

  private:
    at::Tensor project(const at::Tensor& x) const;
    at::Tensor output(const at::Tensor& mixed) const;
    /// All but the attention itself: attend(q, k, v), normed and rotated, [batch, heads, time, dim].
    template <class Attend>
    at::Tensor mix(const at::Tensor& x, const RotaryTables& rotary, Attend attend) const;

    /// Of a piece, as attend_to_last, or as attend_within.
    at::Tensor attend_to_piece(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const SequencePlaces& places) const;
    /// For each rank of the context group, the first token of the sequences that queries of its piece see.
    std::vector<int64_t> first_seen(const SequencePlaces& places) const;

    AttentionShape shape_;
    double norm_eps_;
    // The biases and the norms are null where the teacher has none.
    const Parameter *qkv_, *qkv_bias_, *output_, *output_bias_, *q_norm_, *k_norm_;
};

}  // namespace amalgam
