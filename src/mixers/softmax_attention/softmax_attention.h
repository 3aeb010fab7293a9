// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention of the teachers: grouped-query, with optional biases, per-head q/k norm (Qwen3) and sliding
// window. Computed by LibTorch's scaled_dot_product_attention.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

const MixerDeclaration& softmax_attention_declaration();

class SoftmaxAttention : public Mixer {
  public:
    SoftmaxAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store);
    at::Tensor forward(const at::Tensor& x, const RotaryTables& rotary, MixerCache* cache) const override;
    std::unique_ptr<MixerCache> make_cache(int64_t batch, at::Device device) const override;

  private:
    at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const;

    int64_t query_heads_, key_value_heads_, head_dim_, window_;
    double norm_eps_;
    // The biases and the norms are null where the teacher has none.
    const Parameter *qkv_, *qkv_bias_, *output_, *output_bias_, *q_norm_, *k_norm_;
};

}  // namespace amalgam
