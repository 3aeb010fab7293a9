// SPDX-License-Identifier: Apache-2.0
#include "model/causal_lm.h"

#include <ATen/ATen.h>

#include "operations/operations.h"

namespace amalgam {

CausalLM::CausalLM(const ModelSpec& spec, at::Device device, at::ScalarType compute_type, bool trainable,
                   Allocation allocation)
    : spec_(spec), device_(device), compute_type_(compute_type) {
    const ModelConfig& c = spec_.config;
    const auto group = ParameterGroup::rest;
    embedding_ = parameters_.add("model.embed_tokens.weight", {c.vocabulary_size, c.hidden_size}, group, -1);
    for (int64_t layer = 0; layer < c.layers; ++layer) blocks_.emplace_back(spec_, layer, parameters_);
    norm_ = parameters_.add("model.norm.weight", {c.hidden_size}, group, -1, true);
    if (!c.tied_head) head_ = parameters_.add("lm_head.weight", {c.vocabulary_size, c.hidden_size}, group, -1);
    if (allocation == Allocation::now) parameters_.allocate(device, compute_type, trainable);
}

RotaryTables CausalLM::rotary(int64_t first, int64_t count) const {
    if (rotary_range_ != std::pair{first, count}) {
        rotary_tables_ = rotary_tables(spec_.config.rope, spec_.config.head_dim, first, count, device_);
        rotary_range_ = {first, count};
    }
    return rotary_tables_;
}

at::Tensor CausalLM::hidden(const at::Tensor& tokens, ModelCache* cache) const {
    const HeldOuterWeights outer(*this, 0);
    const RotaryTables tables = rotary(cache ? cache->tokens : 0, tokens.size(1));
    at::Tensor x = outer.embed(tokens);
    const auto count = int64_t(blocks_.size());
    for (int64_t i = 0; i < count; ++i) {
        const HeldBlock block(*this, i, i + 1 < count ? i + 1 : WeightsOnDemand::nothing);
        if (x.size(0) > 0) x = block->forward(x, tables, cache ? cache->layers[size_t(i)].get() : nullptr);
    }
    if (cache) cache->tokens += tokens.size(1);
    return outer.final_norm(x);
}

at::Tensor CausalLM::logits(const at::Tensor& tokens, ModelCache* cache) const {
    const HeldOuterWeights outer(*this);
    return at::linear(hidden(tokens, cache), outer.head());
}

ModelCache CausalLM::make_cache(int64_t batch) const {
    ModelCache cache;
    for (const Block& block : blocks_) cache.layers.push_back(block.mixer().make_cache(batch, device_));
    return cache;
}

HeldOuterWeights::HeldOuterWeights(const CausalLM& model, int64_t next)
    : model_(model), hold_(model.weights_on_demand(), WeightsOnDemand::outside_blocks, next) {}

at::Tensor HeldOuterWeights::embed(const at::Tensor& tokens) const {
    return at::embedding(model_.embedding_->compute, tokens);
}

at::Tensor HeldOuterWeights::final_norm(const at::Tensor& x) const {
    return x.size(0) > 0 ? rms_norm(x, norm(), model_.config().rms_norm_eps) : x;
}

HeldBlock::HeldBlock(const CausalLM& model, int64_t layer, int64_t next)
    : block_(model.blocks_.at(size_t(layer))), hold_(model.weights_on_demand(), layer, next) {}

}  // namespace amalgam
