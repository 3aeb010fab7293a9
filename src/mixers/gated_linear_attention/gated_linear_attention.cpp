// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_linear_attention/gated_linear_attention.h"

#include <ATen/ATen.h>

#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"
#include "system/error.h"

namespace amalgam {
namespace {

/// fp32 [batch, heads, key dim, value dim].
struct GatedLinearAttentionCache : MixerCache {
    at::Tensor state;
};

}  // namespace

GatedLinearAttention::GatedLinearAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : heads_(spec.config.query_heads), head_dim_(spec.config.head_dim), options_(spec.linear) {
    require(!options_.short_convolution && !options_.activation && !options_.rope, "gated linear attention of layer ",
            layer,
            ": has no convolution, no SiLU on q, k, v and no rotary embedding; switch them off (student.variant: "
            "gla_v1)");
    const std::string prefix = layer_prefix(layer) + "linear_attn.";
    const auto group = ParameterGroup::mixer;
    const int64_t width = heads_ * head_dim_, hidden = spec.config.hidden_size, rank = gated_linear_attention_rank;
    std::vector<std::pair<std::string, int64_t>> rows = {
        {prefix + "q_proj.weight", width}, {prefix + "k_proj.weight", width}, {prefix + "v_proj.weight", width}};
    if (options_.output_gate) rows.push_back({prefix + "g_proj.weight", width});
    in_ = store.add_fused(prefix + "in_proj.weight", rows, {hidden}, group, layer);
    decay_down_ = store.add(prefix + "gk_proj.0.weight", {rank, hidden}, group, layer);
    decay_up_ = store.add(prefix + "gk_proj.1.weight", {width, rank}, group, layer);
    decay_bias_ = store.add(prefix + "gk_proj.1.bias", {width}, group, layer);
    if (options_.output_norm) norm_ = store.add(prefix + "o_norm.weight", {head_dim_}, group, layer, true);
    output_ = store.add(prefix + "o_proj.weight", {hidden, width}, group, layer);
}

at::Tensor GatedLinearAttention::forward(const at::Tensor& x, const RotaryTables&, MixerCache* cache) const {
    auto* seen = static_cast<GatedLinearAttentionCache*>(cache);
    const at::Tensor decay = at::linear(at::linear(x, decay_down_->compute), decay_up_->compute, decay_bias_->compute);
    const at::Tensor mixed = gated_linear_attention_mixing(
        at::linear(x, in_->compute), decay, norm_ ? norm_->compute : at::Tensor(),
        {heads_, head_dim_, options_.output_gate, options_.norm_eps}, seen ? &seen->state : nullptr);
    return at::linear(mixed, output_->compute);
}

std::unique_ptr<MixerCache> GatedLinearAttention::make_cache(int64_t batch, at::Device device) const {
    auto cache = std::make_unique<GatedLinearAttentionCache>();
    cache->state = at::zeros({batch, heads_, head_dim_, head_dim_}, at::TensorOptions(device).dtype(at::kFloat));
    return cache;
}

}  // namespace amalgam
