// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/gated_delta_net.h"

#include <ATen/ATen.h>

#include "mixers/gated_delta_net/exports.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

/// The state of the delta rule, fp32 [batch, heads, key dim, value dim], and the last inputs of the convolution,
/// [batch, width - 1, channels].
struct GatedDeltaCache : MixerCache {
    at::Tensor state, recent;
};

/// On GPUs, a product whose sizes are no multiples of 16 bytes takes about three times as long: rows of zeros round up.
at::Tensor padded_for_gpu(const at::Tensor& weight) {
    const int64_t multiple = 16 / weight.element_size(), extra = (multiple - weight.size(0) % multiple) % multiple;
    return weight.is_cuda() && extra > 0 ? at::constant_pad_nd(weight, {0, 0, 0, extra}) : weight;
}

}  // namespace

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

at::Tensor GatedDeltaNet::forward(const at::Tensor& x, const RotaryTables& rotary, MixerCache* cache) const {
    const int64_t width = heads_ * head_dim_;
    auto* seen = static_cast<GatedDeltaCache*>(cache);
    const auto projected = at::linear(x, padded_for_gpu(in_->compute));
    const auto norm = norm_ ? norm_->compute : at::Tensor();
    GatedDeltaShape shape{heads_, head_dim_, options_.output_gate, options_.activation, norm_eps_};

    at::Tensor mixed;  // [batch, time, width]
    if (!convolution_ && !options_.rope) {
        mixed = gated_delta_mixing(projected, a_log_->compute, dt_bias_->compute, norm, shape,
                                   seen ? &seen->state : nullptr);
    } else {
        std::vector<int64_t> sizes = {3 * width, 2 * heads_};
        if (options_.output_gate) sizes.insert(sizes.begin() + 1, width);
        auto parts = at::split_with_sizes(projected.narrow(-1, 0, shape.columns()), sizes, -1);
        if (convolution_) {
            parts[0] =
                short_convolution(parts[0], convolution_->compute, options_.activation, seen ? &seen->recent : nullptr);
            shape.activation = false;  // the convolution has applied it
        }
        if (options_.rope) {
            // Rotation commutes with nothing but the norm: it comes after SiLU and before the L2 norm.
            auto qkv = at::split_with_sizes(parts[0], {width, width, width}, -1);
            for (int i = 0; i < 3; ++i) {
                if (shape.activation) qkv[i] = at::silu(qkv[i]);
                if (i < 2) qkv[i] = rotate(qkv[i].unflatten(-1, {heads_, head_dim_}), rotary).flatten(-2);
            }
            shape.activation = false;
            parts[0] = at::cat(qkv, -1);
        }
        mixed = gated_delta_mixing(at::cat(parts, -1), a_log_->compute, dt_bias_->compute, norm, shape,
                                   seen ? &seen->state : nullptr);
    }
    return at::linear(mixed, output_->compute);
}

std::unique_ptr<MixerCache> GatedDeltaNet::make_cache(int64_t batch, at::Device device) const {
    auto cache = std::make_unique<GatedDeltaCache>();
    cache->state = at::zeros({batch, heads_, head_dim_, head_dim_}, at::TensorOptions(device).dtype(at::kFloat));
    if (convolution_)
        cache->recent = at::zeros({batch, gated_delta_net_taps - 1, 3 * heads_ * head_dim_},
                                  at::TensorOptions(device).dtype(in_->compute.scalar_type()));
    return cache;
}

const MixerImplementation& gated_delta_net_implementation() {
    static const MixerImplementation implementation = {make_module<GatedDeltaNet>, gated_delta_net_exports()};
    return implementation;
}

}  // namespace amalgam
