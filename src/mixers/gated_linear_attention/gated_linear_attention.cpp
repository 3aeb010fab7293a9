// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_linear_attention/gated_linear_attention.h"

#include <ATen/ATen.h>

#include "mixers/gated_linear_attention/exports.h"
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"

namespace amalgam {
namespace {

/// fp32 [batch, heads, key dim, value dim].
struct GatedLinearAttentionCache : MixerCache {
    at::Tensor state;
};

}  // namespace

GatedLinearAttention::GatedLinearAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : heads_(spec.config.query_heads),
      head_dim_(spec.config.head_dim),
      options_(spec.options),
      norm_eps_(spec.output_norm_eps) {
    const MixerParameters parameters(gated_linear_attention_declaration(), spec, layer, store);
    in_ = parameters.find("linear_attn.in_proj.weight");
    decay_down_ = parameters.find("linear_attn.gk_proj.0.weight");
    decay_up_ = parameters.find("linear_attn.gk_proj.1.weight");
    decay_bias_ = parameters.find("linear_attn.gk_proj.1.bias");
    norm_ = parameters.find("linear_attn.o_norm.weight");
    output_ = parameters.find("linear_attn.o_proj.weight");
}

at::Tensor GatedLinearAttention::forward(const at::Tensor& x, const RotaryTables&, MixerCache* cache) const {
    auto* seen = static_cast<GatedLinearAttentionCache*>(cache);
    const at::Tensor decay = at::linear(at::linear(x, decay_down_->compute), decay_up_->compute, decay_bias_->compute);
    const at::Tensor mixed = gated_linear_attention_mixing(
        at::linear(x, in_->compute), decay, norm_ ? norm_->compute : at::Tensor(),
        {heads_, head_dim_, options_.output_gate, norm_eps_}, seen ? &seen->state : nullptr);
    return at::linear(mixed, output_->compute);
}

std::unique_ptr<MixerCache> GatedLinearAttention::make_cache(int64_t batch, at::Device device) const {
    auto cache = std::make_unique<GatedLinearAttentionCache>();
    cache->state = at::zeros({batch, heads_, head_dim_, head_dim_}, at::TensorOptions(device).dtype(at::kFloat));
    return cache;
}

const MixerImplementation& gated_linear_attention_implementation() {
    static const MixerImplementation implementation = {make_module<GatedLinearAttention>,
                                                       gated_linear_attention_exports()};
    return implementation;
}

}  // namespace amalgam
