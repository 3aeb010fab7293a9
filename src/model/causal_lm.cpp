// SPDX-License-Identifier: Apache-2.0
#include "model/causal_lm.h"

#include <ATen/ATen.h>

#include "model/operations.h"

namespace amalgam {

CausalLM::CausalLM(const ModelSpec& spec, at::Device device, at::ScalarType compute_type, bool trainable)
    : spec_(spec), device_(device), compute_type_(compute_type) {
    const ModelConfig& c = spec_.config;
    const auto group = ParameterGroup::rest;
    embedding_ = parameters_.add("model.embed_tokens.weight", {c.vocabulary_size, c.hidden_size}, group, -1);
    for (int64_t layer = 0; layer < c.layers; ++layer) blocks_.emplace_back(spec_, layer, parameters_);
    norm_ = parameters_.add("model.norm.weight", {c.hidden_size}, group, -1, true);
    if (!c.tied_head) head_ = parameters_.add("lm_head.weight", {c.vocabulary_size, c.hidden_size}, group, -1);
    parameters_.allocate(device, compute_type, trainable);
}

at::Tensor CausalLM::embed(const at::Tensor& tokens) const {
    return at::embedding(embedding_->compute, tokens);
}

RotaryTables CausalLM::rotary(int64_t first, int64_t count) const {
    if (rotary_range_ != std::pair{first, count}) {
        rotary_tables_ = rotary_tables(spec_.config.rope, spec_.config.head_dim, first, count, device_);
        rotary_range_ = {first, count};
    }
    return rotary_tables_;
}

at::Tensor CausalLM::hidden(const at::Tensor& tokens, ModelCache* cache) const {
    return hidden_of(embed(tokens), cache);
}

at::Tensor CausalLM::hidden_of(const at::Tensor& embeddings, ModelCache* cache) const {
    const RotaryTables tables = rotary(cache ? cache->tokens : 0, embeddings.size(1));
    at::Tensor x = embeddings;
    for (size_t i = 0; i < blocks_.size(); ++i)
        x = blocks_[i].forward(x, tables, cache ? cache->layers[i].get() : nullptr);
    if (cache) cache->tokens += embeddings.size(1);
    return rms_norm(x, norm_->compute, spec_.config.rms_norm_eps);
}

at::Tensor CausalLM::logits(const at::Tensor& tokens, ModelCache* cache) const {
    return at::linear(hidden(tokens, cache), head().compute);
}

ModelCache CausalLM::make_cache(int64_t batch) const {
    ModelCache cache;
    for (const Block& block : blocks_) cache.layers.push_back(block.mixer().make_cache(batch, device_));
    return cache;
}

}  // namespace amalgam
