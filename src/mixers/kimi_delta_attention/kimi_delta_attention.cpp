// SPDX-License-Identifier: Apache-2.0
#include "mixers/kimi_delta_attention/kimi_delta_attention.h"

#include <ATen/ATen.h>

#include "mixers/first_values.h"
#include "mixers/kimi_delta_attention/exports.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"
#include "mixers/kimi_delta_attention/start.h"
#include "mixers/placed_convolution.h"
#include "mixers/projections.h"
#include "mixers/state_cache.h"
#include "operations/operations.h"

namespace amalgam {

KimiDeltaAttention::KimiDeltaAttention(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : heads_(spec.config.query_heads),
      head_dim_(spec.config.head_dim),
      options_(spec.options),
      norm_eps_(spec.output_norm_eps) {
    const MixerParameters parameters(kimi_delta_attention_declaration(), spec, layer, store);
    in_ = parameters.find("linear_attn.in_proj.weight");
    decay_up_ = parameters.find("linear_attn.f_proj.1.weight");
    gate_up_ = parameters.find("linear_attn.g_proj.1.weight");
    gate_bias_ = parameters.find("linear_attn.g_proj.1.bias");
    a_log_ = parameters.find("linear_attn.A_log");
    dt_bias_ = parameters.find("linear_attn.dt_bias");
    norm_ = parameters.find("linear_attn.o_norm.weight");
    output_ = parameters.find("linear_attn.o_proj.weight");
    convolution_ = parameters.find("linear_attn.conv1d.weight");
}

template <class Input, class Convolve, class Rule>
auto KimiDeltaAttention::mix(const Input& x, Convolve convolve, Rule rule) const {
    const int64_t qkv = 3 * heads_ * head_dim_, columns = qkv + heads_ + 2 * head_dim_;
    const auto parts = at::split_with_sizes(project_in(x, in_->compute).narrow(-1, 0, columns),
                                            {qkv, heads_, head_dim_, head_dim_}, -1);
    // The convolution applies SiLU itself.
    const KimiDeltaShape shape{heads_, head_dim_, convolution_ == nullptr, options_.lower_bound};
    const at::Tensor o = rule(KimiDeltaTokens{convolution_ ? convolve(parts[0]) : parts[0],
                                              linear_map(parts[2], decay_up_->compute), parts[1]},
                              shape);
    const at::Tensor gate = linear_map(parts[3], gate_up_->compute, gate_bias_->compute);
    return project_out(x, gated_rms_norm(o, {}, norm_->compute, norm_eps_) * at::sigmoid(gate), output_->compute);
}

at::Tensor KimiDeltaAttention::forward(const at::Tensor& x, const SequencePlaces& places) const {
    return mix(
        x, [&](const at::Tensor& qkv) { return short_convolution(qkv, convolution_->compute, true, places); },
        [&](const KimiDeltaTokens& tokens, const KimiDeltaShape& shape) {
            if (places.documents)
                return kimi_delta_rule_of_documents(tokens, a_log_->compute, dt_bias_->compute, shape,
                                                    *places.documents);
            if (!places.context) return kimi_delta_rule(tokens, a_log_->compute, dt_bias_->compute, shape, nullptr);
            return mix_piece(places, tokens.qkv, {x.size(0), heads_, head_dim_, head_dim_},
                             [&](const at::Tensor& qkv, const at::Tensor& before) {
                                 return kimi_delta_rule_of_piece({qkv, tokens.a, tokens.b}, a_log_->compute,
                                                                 dt_bias_->compute, shape, before,
                                                                 places.documents_of_piece.get());
                             });
        });
}

at::Tensor KimiDeltaAttention::forward_chunk(const at::Tensor& x, const RotaryTables&, MixerCache& cache,
                                             const CacheChunk& chunk) const {
    auto& seen = static_cast<StateCache&>(cache);
    const at::Tensor padding = padding_of(chunk, x.size(1));
    return mix(
        x,
        [&](const at::Tensor& qkv) {
            at::Tensor recent = seen.recents_before(chunk);
            const at::Tensor after = seen.recents_after(chunk, recent, qkv);
            const at::Tensor y = short_convolution(qkv, convolution_->compute, true, &recent);
            seen.recents.index_copy_(0, chunk.slots, after);
            return y;
        },
        [&](const KimiDeltaTokens& tokens, const KimiDeltaShape& shape) {
            at::Tensor state = seen.states_before(chunk);
            if (padding.defined())
                for (const at::Tensor& logits : {tokens.a, tokens.b})
                    logits.masked_fill_(padding.unsqueeze(-1), StateCache::no_effect);
            const at::Tensor o = kimi_delta_rule(tokens, a_log_->compute, dt_bias_->compute, shape, &state);
            seen.states.index_copy_(0, chunk.slots, state);
            return o;
        });
}

Sum KimiDeltaAttention::forward_step(const Normed& x, const RotaryTables&, MixerCache& cache,
                                     const CacheStep& step) const {
    auto& seen = static_cast<StateCache&>(cache);
    return mix(
        x,
        [&](const at::Tensor& qkv) {
            return short_convolution_step(qkv, convolution_->compute, true, seen.recents, step.slots);
        },
        [&](const KimiDeltaTokens& tokens, const KimiDeltaShape& shape) {
            return kimi_delta_step(tokens, a_log_->compute, dt_bias_->compute, shape, seen.states, step.slots);
        });
}

std::unique_ptr<MixerCache> KimiDeltaAttention::make_cache(const CacheSize& size, at::Device device) const {
    return std::make_unique<StateCache>(size.slots, heads_, head_dim_, convolved_channels(),
                                        at::TensorOptions(device).dtype(in_->compute.scalar_type()));
}

int64_t KimiDeltaAttention::cache_bytes(int64_t) const {
    return heads_ * head_dim_ * head_dim_ * 4 +
           convolved_channels() * (short_convolution_taps - 1) * int64_t(in_->compute.element_size());
}

const MixerImplementation& kimi_delta_attention_implementation() {
    static const MixerImplementation implementation = {make_module<KimiDeltaAttention>, kimi_delta_attention_exports(),
                                                       kimi_delta_attention_starts()};
    return implementation;
}

}  // namespace amalgam
