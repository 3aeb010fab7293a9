// SPDX-License-Identifier: Apache-2.0
#include "model/transfer.h"

#include <ATen/ATen.h>

#include <cmath>

#include "mixers/gated_linear_attention/gated_linear_attention.h"
#include "system/error.h"
#include "system/random.h"

namespace amalgam {
namespace {

constexpr const char* linear_marker = ".linear_attn.";

template <class Draw>
at::Tensor drawn(std::vector<int64_t> shape, Draw draw) {
    at::Tensor t = at::empty(shape, at::kFloat);
    float* values = t.data_ptr<float>();
    for (int64_t i = 0; i < t.numel(); ++i) values[i] = float(draw(i));
    return t;
}

}  // namespace

at::Tensor expand_key_value(const at::Tensor& weight, int64_t key_value_heads, int64_t query_heads,
                            KeyValueExpansion expansion) {
    const int64_t group = query_heads / key_value_heads;
    if (expansion == KeyValueExpansion::per_row) return weight.repeat_interleave(group, 0);
    const auto heads = weight.unflatten(0, {key_value_heads, weight.size(0) / key_value_heads});
    return heads.repeat_interleave(group, 0).flatten(0, 1);
}

TransferSource::TransferSource(const TensorSource& teacher, const ModelConfig& config, const LinearOptions& linear,
                               KeyValueExpansion expansion, uint64_t seed)
    : teacher_(teacher), config_(config), linear_(linear), expansion_(expansion), seed_(seed) {}

std::optional<at::Tensor> TransferSource::find(const std::string& name) const {
    const size_t at = name.find(linear_marker);
    if (at == std::string::npos) return teacher_.find(name);
    const std::string part = name.substr(at + std::string(linear_marker).size());
    if (part == "q_proj.weight" || part == "k_proj.weight" || part == "v_proj.weight" || part == "o_proj.weight") {
        const auto softmax = teacher_.find(name.substr(0, at) + ".self_attn." + part);
        if (!softmax || part[0] == 'q' || part[0] == 'o') return softmax;
        return expand_key_value(*softmax, config_.key_value_heads, config_.query_heads, expansion_);
    }
    return initialise(name, part);
}

at::Tensor TransferSource::initialise(const std::string& name, const std::string& part) const {
    const RandomStream random(seed_, name);
    const int64_t heads = config_.query_heads, width = heads * config_.head_dim, hidden = config_.hidden_size;
    // torch.nn.Linear: uniform in +-1/sqrt(inputs).
    auto linear = [&](std::vector<int64_t> shape, int64_t inputs) {
        const double bound = 1.0 / std::sqrt(double(inputs));
        return drawn(std::move(shape), [&](int64_t i) { return bound * (2.0 * random.uniform(i) - 1.0); });
    };
    const int64_t rank = gated_linear_attention_rank;
    if (part == "g_proj.weight") return linear({width, hidden}, hidden);
    if (part == "a_proj.weight" || part == "b_proj.weight") return linear({heads, hidden}, hidden);
    if (part == "gk_proj.0.weight") return linear({rank, hidden}, hidden);
    if (part == "gk_proj.1.weight") return linear({width, rank}, rank);
    if (part == "gk_proj.1.bias") return linear({width}, rank);
    if (part == "A_log") return drawn({heads}, [&](int64_t i) { return std::log(16.0 * random.uniform(i)); });
    if (part == "dt_bias")
        return drawn({heads}, [&](int64_t i) {
            const double step =
                std::max(std::exp(std::log(1e-3) + random.uniform(i) * (std::log(0.1) - std::log(1e-3))), 1e-4);
            return step + std::log(-std::expm1(-step));
        });
    if (part == "o_norm.weight") return at::ones({config_.head_dim});
    if (part == "conv1d.weight") {
        // Starts as the identity: the last tap is the current token.
        at::Tensor taps = at::zeros({3 * width, linear_.convolution_width});
        taps.select(1, linear_.convolution_width - 1).fill_(1.0);
        return taps;
    }
    throw Error(text("no initial value is known for ", name));
}

}  // namespace amalgam
