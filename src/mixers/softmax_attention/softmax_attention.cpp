// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/softmax_attention.h"

#include <ATen/ATen.h>

#include "mixers/softmax_attention/exports.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

/// Keys (after rotation) and values of all tokens so far, [batch, kv heads, time, dim].
struct KeyValueCache : MixerCache {
    at::Tensor keys, values;
};

at::Tensor bias_of(const Parameter* parameter) {
    return parameter ? parameter->compute : at::Tensor();
}

}  // namespace

SoftmaxAttention::SoftmaxAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : query_heads_(spec.config.query_heads),
      key_value_heads_(spec.config.key_value_heads),
      head_dim_(spec.config.head_dim),
      window_(spec.config.window[layer]),
      norm_eps_(spec.config.rms_norm_eps) {
    const MixerParameters parameters(softmax_attention_declaration(), spec, layer, store);
    qkv_ = parameters.find("self_attn.qkv_proj.weight");
    qkv_bias_ = parameters.find("self_attn.qkv_proj.bias");
    output_ = parameters.find("self_attn.o_proj.weight");
    output_bias_ = parameters.find("self_attn.o_proj.bias");
    q_norm_ = parameters.find("self_attn.q_norm.weight");
    k_norm_ = parameters.find("self_attn.k_norm.weight");
}

at::Tensor SoftmaxAttention::attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) const {
    const int64_t time = q.size(2), keys = k.size(2);
    const bool grouped = query_heads_ != key_value_heads_;
    // The mask is needed where is_causal cannot say it: a window, or fewer queries than keys (generation).
    const bool windowed = window_ > 0 && keys > window_;
    if (time == keys && !windowed) return causal_attention(q, k, v);
    const auto positions = at::arange(keys, q.options().dtype(at::kLong));
    const auto query_positions = positions.narrow(0, keys - time, time).unsqueeze(1);
    at::Tensor mask = positions.unsqueeze(0).le(query_positions);
    if (windowed) mask = mask.logical_and(positions.unsqueeze(0).gt(query_positions - window_));
    return at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, std::nullopt, grouped);
}

at::Tensor SoftmaxAttention::forward(const at::Tensor& x, const RotaryTables& rotary, MixerCache* cache) const {
    const int64_t batch = x.size(0), time = x.size(1);
    const auto projected = at::linear(x, qkv_->compute, bias_of(qkv_bias_));
    const int64_t q_width = query_heads_ * head_dim_, kv_width = key_value_heads_ * head_dim_;
    auto parts = at::split_with_sizes(projected, {q_width, kv_width, kv_width}, -1);
    auto heads = [&](const at::Tensor& t, int64_t count) { return t.unflatten(-1, {count, head_dim_}); };
    at::Tensor q = heads(parts[0], query_heads_), k = heads(parts[1], key_value_heads_),
               v = heads(parts[2], key_value_heads_);
    if (q_norm_) {
        q = rms_norm(q, q_norm_->compute, norm_eps_);
        k = rms_norm(k, k_norm_->compute, norm_eps_);
    }
    q = rotate(q, rotary).transpose(1, 2);  // [batch, heads, time, dim]
    k = rotate(k, rotary).transpose(1, 2);
    v = v.transpose(1, 2);
    if (auto* seen = static_cast<KeyValueCache*>(cache)) {
        if (seen->keys.defined()) {
            k = at::cat({seen->keys, k}, 2);
            v = at::cat({seen->values, v}, 2);
        }
        seen->keys = k;
        seen->values = v;
    }
    const auto mixed = attend(q, k, v).transpose(1, 2).reshape({batch, time, q_width});
    return at::linear(mixed, output_->compute, bias_of(output_bias_));
}

std::unique_ptr<MixerCache> SoftmaxAttention::make_cache(int64_t, at::Device) const {
    return std::make_unique<KeyValueCache>();
}

const MixerImplementation& softmax_attention_implementation() {
    static const MixerImplementation implementation = {make_module<SoftmaxAttention>, softmax_attention_exports()};
    return implementation;
}

}  // namespace amalgam
