// SPDX-License-Identifier: Apache-2.0
#include "mixers/softmax_attention/exports.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "mixers/softmax_attention/neutral_norm.h"

namespace amalgam {
namespace {

/// Rows of q_proj per head become [query | gate], the gate zero: sigmoid(0) = 1/2, so o_proj is doubled.
at::Tensor with_closed_gate(const at::Tensor& query, int64_t heads) {
    const auto by_head = query.unflatten(0, {heads, query.size(0) / heads});
    return at::cat({by_head, at::zeros_like(by_head)}, 1).flatten(0, 1);
}

/// Qwen3.5 stores norm weights minus one; in fp32 because the subtraction costs bits in bf16.
void put_minus_one(TensorWriter& folder, const std::string& name) {
    folder.put(name, folder.take(name) - 1.0, /*full_precision=*/true);
}

/// The weight of the norm before the mixer is folded into the projections.
void write_qwen3_5(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const ModelConfig& c = spec.config;
    const std::string name = layer_prefix(layer) + "self_attn.";
    const at::Tensor norm = folder.take(layer_prefix(layer) + "input_layernorm.weight");
    const at::Tensor query = folder.take(name + "q_proj.weight") * norm,
                     key = folder.take(name + "k_proj.weight") * norm;
    at::Tensor query_bias, key_bias;
    if (c.qkv_bias) {
        query_bias = folder.take(name + "q_proj.bias");
        key_bias = folder.take(name + "k_proj.bias");
    }
    const double scale = c.qk_norm ? 1.0
                                   : neutral_scale(std::max(mean_square_bound(query, query_bias, c.head_dim),
                                                            mean_square_bound(key, key_bias, c.head_dim)),
                                                   c.rms_norm_eps);
    folder.put(name + "q_proj.weight", with_closed_gate(query * scale, c.query_heads));
    folder.put(name + "k_proj.weight", key * scale);
    folder.put(name + "v_proj.weight", folder.take(name + "v_proj.weight") * norm);
    folder.put(name + "o_proj.weight", folder.take(name + "o_proj.weight") * 2.0);
    if (c.qkv_bias) {
        folder.put(name + "q_proj.bias", with_closed_gate(query_bias * scale, c.query_heads));
        folder.put(name + "k_proj.bias", key_bias * scale);
        folder.copy(name + "v_proj.bias", name + "v_proj.bias");
        // The gate halves the attention only, not what is added after it.
        folder.put(name + "o_proj.bias",
                   c.output_bias ? folder.take(name + "o_proj.bias") : at::zeros({c.hidden_size}));
    }
    if (c.qk_norm) {
        put_minus_one(folder, name + "q_norm.weight");
        put_minus_one(folder, name + "k_norm.weight");
        return;
    }
    const auto [q, k] = neutral_norm_weights(c.rms_norm_eps, scale);
    folder.put(name + "q_norm.weight", at::full({c.head_dim}, q, at::kFloat));
    folder.put(name + "k_norm.weight", at::full({c.head_dim}, k, at::kFloat));
}

void write_fla(TensorWriter& folder, const ModelSpec& spec, int64_t layer) {
    const std::string from = layer_prefix(layer) + "self_attn.", to = layer_prefix(layer) + "attn.";
    for (const char* name : {"q_proj", "k_proj", "v_proj"}) {
        folder.copy(from + name + ".weight", to + name + ".weight");
        if (spec.config.qkv_bias) folder.copy(from + name + ".bias", to + name + ".bias");
    }
    folder.copy(from + "o_proj.weight", to + "o_proj.weight");
}

}  // namespace

std::vector<LayerExport> softmax_attention_exports() {
    return {{"qwen3_5", write_qwen3_5}, {"fla", write_fla}};
}

}  // namespace amalgam
