// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/gated_delta_net.h"

#include <ATen/ATen.h>

#include "mixers/first_values.h"
#include "mixers/gated_delta_net/exports.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"
#include "mixers/placed_convolution.h"
#include "mixers/projections.h"
#include "mixers/state_cache.h"
#include "operations/operations.h"

namespace amalgam {
GatedDeltaNet::GatedDeltaNet(const ModelSpec& spec, int64_t layer, ParameterStore& store)
    : heads_(spec.config.query_heads),
      head_dim_(spec.config.head_dim),
      options_(spec.options),
      norm_eps_(spec.output_norm_eps) {
    const MixerParameters parameters(gated_delta_net_declaration(), spec, layer, store);
    in_ = parameters.find("linear_attn.in_proj.weight");
    a_log_ = parameters.find("linear_attn.A_log");
    dt_bias_ = parameters.find("linear_attn.dt_bias");
    norm_ = parameters.find("linear_attn.o_norm.weight");
    convolution_ = parameters.find("linear_attn.conv1d.weight");
    output_ = parameters.find("linear_attn.o_proj.weight");
}

template <class Input, class Convolve, class Turn, class Rule>
auto GatedDeltaNet::mix(const Input& x, Convolve convolve, Turn turn, Rule rule) const {
    const int64_t width = heads_ * head_dim_;
    at::Tensor projected = project_in(x, in_->compute);
    GatedDeltaShape shape{heads_, head_dim_, options_.output_gate, options_.activation, norm_eps_};
    if (convolution_) {
        projected = convolve(projected);
        shape.activation = false;  // the convolution has applied it
    }
    if (options_.rope) {
        const int64_t others = shape.columns() - 3 * width;
        auto parts = at::split_with_sizes(projected.narrow(-1, 0, shape.columns()), {width, width, width, others}, -1);
        // Rotation commutes with nothing but the norm: it comes after SiLU and before the L2 norm.
        for (int i = 0; i < 3; ++i) {
            if (shape.activation) parts[i] = at::silu(parts[i]);
            if (i < 2) parts[i] = turn(parts[i].unflatten(-1, {heads_, head_dim_})).flatten(-2);
        }
        shape.activation = false;
        projected = at::cat(parts, -1);
    }
    return project_out(x, rule(projected, compute_if_there(norm_), shape), output_->compute);
}

at::Tensor GatedDeltaNet::forward(const at::Tensor& x, const SequencePlaces& places) const {
    return mix(
        x,
        [&](const at::Tensor& projected) {
            return short_convolution(projected, convolution_->compute, options_.activation, places);
        },
        [&](const at::Tensor& heads) { return rotate(heads, places.rotary); },
        [&](const at::Tensor& projected, const at::Tensor& norm, const GatedDeltaShape& shape) {
            if (places.documents)
                return gated_delta_mixing_of_documents(projected, a_log_->compute, dt_bias_->compute, norm, shape,
                                                       *places.documents);
            if (!places.context)
                return gated_delta_mixing(projected, a_log_->compute, dt_bias_->compute, norm, shape, nullptr);
            return mix_piece(places, projected, {x.size(0), heads_, head_dim_, head_dim_},
                             [&](const at::Tensor& input, const at::Tensor& before) {
                                 return gated_delta_mixing_of_piece(input, a_log_->compute, dt_bias_->compute, norm,
                                                                    shape, before, places.documents_of_piece.get());
                             });
        });
}

at::Tensor GatedDeltaNet::forward_chunk(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                                        const CacheChunk& chunk) const {
    auto& seen = static_cast<StateCache&>(cache);
    const at::Tensor padding = padding_of(chunk, x.size(1));
    return mix(
        x,
        [&](const at::Tensor& projected) {
            at::Tensor recent = seen.recents_before(chunk);
            const at::Tensor convolved = projected.narrow(-1, 0, convolution_->compute.size(0));
            const at::Tensor after = seen.recents_after(chunk, recent, convolved);
            const at::Tensor y = short_convolution(projected, convolution_->compute, options_.activation, &recent);
            seen.recents.index_copy_(0, chunk.slots, after);
            return y;
        },
        [&](const at::Tensor& heads) { return rotate(heads, rotary); },
        [&](const at::Tensor& projected, const at::Tensor& norm, const GatedDeltaShape& shape) {
            at::Tensor state = seen.states_before(chunk);
            if (padding.defined())
                projected.narrow(-1, shape.columns() - 2 * heads_, 2 * heads_)
                    .masked_fill_(padding.unsqueeze(-1), StateCache::no_effect);
            const at::Tensor y = gated_delta_mixing(projected, a_log_->compute, dt_bias_->compute, norm, shape, &state);
            seen.states.index_copy_(0, chunk.slots, state);
            return y;
        });
}

Sum GatedDeltaNet::forward_step(const Normed& x, const RotaryTables& rotary, MixerCache& cache,
                                const CacheStep& step) const {
    auto& seen = static_cast<StateCache&>(cache);
    return mix(
        x,
        [&](const at::Tensor& projected) {
            return short_convolution_step(projected, convolution_->compute, options_.activation, seen.recents,
                                          step.slots);
        },
        [&](const at::Tensor& heads) { return rotate_rows(heads, rotary, step.lengths); },
        [&](const at::Tensor& projected, const at::Tensor& norm, const GatedDeltaShape& shape) {
            return gated_delta_step(projected, a_log_->compute, dt_bias_->compute, norm, shape, seen.states,
                                    step.slots);
        });
}

std::unique_ptr<MixerCache> GatedDeltaNet::make_cache(const CacheSize& size, at::Device device) const {
    const int64_t channels = convolution_ ? 3 * heads_ * head_dim_ : 0;
    return std::make_unique<StateCache>(size.slots, heads_, head_dim_, channels,
                                        at::TensorOptions(device).dtype(in_->compute.scalar_type()));
}

int64_t GatedDeltaNet::cache_bytes(int64_t) const {
    const int64_t state = heads_ * head_dim_ * head_dim_ * 4,
                  recent = 3 * heads_ * head_dim_ * (short_convolution_taps - 1);
    return state + (convolution_ ? recent * int64_t(in_->compute.element_size()) : 0);
}

const MixerImplementation& gated_delta_net_implementation() {
    static const MixerImplementation implementation = {make_module<GatedDeltaNet>, gated_delta_net_exports()};
    return implementation;
}

}  // namespace amalgam
