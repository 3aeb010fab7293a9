// SPDX-License-Identifier: Apache-2.0
#include "model/block.h"

#include <ATen/ATen.h>

#include "mixers/implementation.h"
#include "operations/operations.h"
#include "operations/products.h"

namespace amalgam {

Block::Block(const ModelSpec& spec, int64_t layer, ParameterStore& store) : norm_eps_(spec.config.rms_norm_eps) {
    const ModelConfig& c = spec.config;
    const std::string prefix = layer_prefix(layer);
    // The paper's code trains this norm at the mixer's rate: its name there is attn_norm.
    mixer_norm_ = store.add(prefix + "input_layernorm.weight", {c.hidden_size}, ParameterGroup::mixer, layer, true);
    mixer_ = find_implementation(spec.layout[layer]).make(spec, layer, store);
    mlp_norm_ =
        store.add(prefix + "post_attention_layernorm.weight", {c.hidden_size}, ParameterGroup::rest, layer, true);
    const std::string mlp = prefix + "mlp.";
    const auto group = ParameterGroup::rest;
    gate_up_ = store.add_fused(
        mlp + "gate_up_proj.weight",
        {{mlp + "gate_proj.weight", c.intermediate_size}, {mlp + "up_proj.weight", c.intermediate_size}},
        {c.hidden_size}, group, layer);
    down_ = store.add(mlp + "down_proj.weight", {c.hidden_size, c.intermediate_size}, group, layer);
    if (!c.mlp_bias) return;
    gate_up_bias_ = store.add_fused(
        mlp + "gate_up_proj.bias",
        {{mlp + "gate_proj.bias", c.intermediate_size}, {mlp + "up_proj.bias", c.intermediate_size}}, {}, group, layer);
    down_bias_ = store.add(mlp + "down_proj.bias", {c.hidden_size}, group, layer);
}

at::Tensor Block::mixer_input(const at::Tensor& x) const {
    return rms_norm(x, mixer_norm_->compute, norm_eps_);
}

at::Tensor Block::finish(const at::Tensor& x, const at::Tensor& mixed) const {
    const auto [residual, normed] = add_rms_norm(x, mixed, mlp_norm_->compute, norm_eps_);
    const auto fused = linear_map(normed, gate_up_->compute, compute_if_there(gate_up_bias_));
    return residual + linear_map(swiglu(fused), down_->compute, compute_if_there(down_bias_));
}

at::Tensor Block::forward(const at::Tensor& x, const SequencePlaces& places) const {
    return finish(x, mixer_->forward(mixer_input(x), places));
}

at::Tensor Block::forward_step(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                               const CacheStep& step) const {
    const Sum y = mixer_->forward_step({x, mixer_norm_->compute, norm_eps_}, rotary, cache, step);
    if (y.addend.defined()) return finish(y.x, y.addend);
    const at::Tensor gated =
        swiglu_map({y.x, mlp_norm_->compute, norm_eps_}, gate_up_->compute, compute_if_there(gate_up_bias_));
    return add_linear_map(y.x, gated, down_->compute, compute_if_there(down_bias_)).value();
}

}  // namespace amalgam
