// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_linear_attention/gated_linear_attention.h"

#include <ATen/ATen.h>

#include "mixers/gated_linear_attention/exports.h"
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"
#include "mixers/projections.h"
#include "mixers/state_cache.h"

namespace amalgam {
namespace {

/// A logit whose decay is none.
constexpr double no_decay = 1e4;

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

template <class Input, class Rule>
auto GatedLinearAttention::mix(const Input& x, Rule rule) const {
    const at::Tensor decay = linear_map(linear_map(x, decay_down_->compute), decay_up_->compute, decay_bias_->compute);
    const at::Tensor mixed = rule(project_in(x, in_->compute), decay, compute_if_there(norm_),
                                  LinearAttentionShape{heads_, head_dim_, options_.output_gate, norm_eps_});
    return project_out(x, mixed, output_->compute);
}

at::Tensor GatedLinearAttention::forward(const at::Tensor& x, const SequencePlaces& places) const {
    return mix(x, [&](const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                      const LinearAttentionShape& shape) {
        const Documents* documents =
            places.documents_of_piece ? &places.documents_of_piece->own() : places.documents.get();
        const at::Tensor kept_apart = documents ? documents->forgetting(decay, gate_logit_normalizer) : decay;
        if (!places.context) return gated_linear_attention_mixing(projected, kept_apart, norm, shape, nullptr);
        return mix_piece(places, projected, {x.size(0), heads_, head_dim_, head_dim_},
                         [&](const at::Tensor& input, const at::Tensor& before) {
                             return gated_linear_attention_mixing_of_piece(input, kept_apart, norm, shape, before);
                         });
    });
}

at::Tensor GatedLinearAttention::forward_chunk(const at::Tensor& x, const RotaryTables&, MixerCache& cache,
                                               const CacheChunk& chunk) const {
    auto& seen = static_cast<StateCache&>(cache);
    return mix(x, [&](const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                      const LinearAttentionShape& shape) {
        at::Tensor state = seen.states_before(chunk);
        if (const at::Tensor padding = padding_of(chunk, x.size(1)); padding.defined()) {
            // Without decay and key, a token leaves the state as it was.
            decay.masked_fill_(padding.unsqueeze(-1), no_decay);
            projected.narrow(-1, shape.width(), shape.width()).masked_fill_(padding.unsqueeze(-1), 0.0);
        }
        const at::Tensor y = gated_linear_attention_mixing(projected, decay, norm, shape, &state);
        seen.states.index_copy_(0, chunk.slots, state);
        return y;
    });
}

Sum GatedLinearAttention::forward_step(const Normed& x, const RotaryTables&, MixerCache& cache,
                                       const CacheStep& step) const {
    const at::Tensor& states = static_cast<StateCache&>(cache).states;
    return mix(x, [&](const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                      const LinearAttentionShape& shape) {
        return gated_linear_attention_step(projected, decay, norm, shape, states, step.slots);
    });
}

std::unique_ptr<MixerCache> GatedLinearAttention::make_cache(const CacheSize& size, at::Device device) const {
    return std::make_unique<StateCache>(size.slots, heads_, head_dim_, /*channels=*/0, at::TensorOptions(device));
}

int64_t GatedLinearAttention::cache_bytes(int64_t) const {
    return heads_ * head_dim_ * head_dim_ * 4;
}

const MixerImplementation& gated_linear_attention_implementation() {
    static const MixerImplementation implementation = {make_module<GatedLinearAttention>,
                                                       gated_linear_attention_exports()};
    return implementation;
}

}  // namespace amalgam
