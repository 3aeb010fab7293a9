// SPDX-License-Identifier: Apache-2.0
#include "model/causal_lm.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "model/own_piece.h"
#include "operations/operations.h"
#include "operations/products.h"

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

void ModelCache::copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) {
    for (const auto& layer : layers) layer->copy(from, to, tokens);
}

RotaryTables CausalLM::rotary(int64_t first, int64_t count, int64_t length) const {
    const std::array range = {first, count, length > 0 ? length : first + count};
    if (rotary_range_ != range) {
        rotary_tables_ = rotary_tables(spec_.config.rope, spec_.config.head_dim, first, count, device_, range[2]);
        rotary_range_ = range;
    }
    return rotary_tables_;
}

template <class Advance>
at::Tensor CausalLM::through_blocks(const at::Tensor& tokens, Advance advance) const {
    const HeldOuterWeights outer(*this, 0);
    at::Tensor x = outer.embed(tokens);
    const auto count = int64_t(blocks_.size());
    for (int64_t i = 0; i < count; ++i) {
        const HeldBlock block(*this, i, i + 1 < count ? i + 1 : WeightsOnDemand::nothing);
        if (x.size(0) > 0) x = advance(*block, i, x);
    }
    return outer.final_norm(x);
}

SequencePlaces CausalLM::places(const TokenBatch& batch, ContextGroup* context) const {
    const int64_t length = batch.time();
    if (!context) return {.rotary = rotary(0, length), .documents = batch.documents};
    const SequencePiece piece = own_piece(length, context);
    SequencePlaces here{rotary(piece.first, piece.count, length), context, length};
    if (batch.documents)
        here.documents_of_piece = std::make_shared<const DocumentsOfPiece>(batch.documents->borders(), length,
                                                                           context->ranks(), context->rank(), device_);
    return here;
}

at::Tensor CausalLM::hidden(const TokenBatch& batch, ContextGroup* context) const {
    const SequencePlaces here = places(batch, context);
    return through_blocks(own_piece(batch.tokens, context),
                          [&](const Block& block, int64_t, const at::Tensor& x) { return block.forward(x, here); });
}

at::Tensor CausalLM::block_outputs(const TokenBatch& batch, const at::Tensor& places, ContextGroup* context) const {
    const SequencePlaces here = this->places(batch, context);
    std::vector<at::Tensor> outputs;
    through_blocks(own_piece(batch.tokens, context), [&](const Block& block, int64_t, const at::Tensor& x) {
        at::Tensor output = block.forward(x, here);
        outputs.push_back(output.flatten(0, 1).index_select(0, places));
        return output;
    });
    if (outputs.empty())
        return at::empty({0, places.size(0), config().hidden_size}, at::TensorOptions(device_).dtype(compute_type_));
    return at::stack(outputs);
}

at::Tensor CausalLM::logits(const TokenBatch& batch) const {
    const HeldOuterWeights outer(*this);
    return linear_map(hidden(batch), outer.head());
}

ModelCache CausalLM::make_cache(const CacheSize& size) const {
    ModelCache cache{size, {}, rotary_step_tables(spec_.config.rope, spec_.config.head_dim, size.capacity, device_)};
    for (const Block& block : blocks_) cache.layers.push_back(block.mixer().make_cache(size, device_));
    return cache;
}

int64_t CausalLM::cache_bytes(int64_t capacity) const {
    int64_t bytes = 0;
    for (const Block& block : blocks_) bytes += block.mixer().cache_bytes(capacity);
    return bytes;
}

at::Tensor CausalLM::hidden(const at::Tensor& tokens, ModelCache& cache, const CacheChunk& chunk,
                            int64_t length) const {
    const at::NoGradGuard no_grad;
    const auto cached = [&](const at::Tensor& table) { return table.narrow(0, chunk.first, tokens.size(1)); };
    // Only `dynamic` scaling depends on the length. Making tables takes as long as a pass of a small model on a GPU.
    const RotaryTables tables = config().rope.rope_type == "dynamic"
                                    ? rotary(chunk.first, tokens.size(1), length)
                                    : RotaryTables{cached(cache.rotary.cos), cached(cache.rotary.sin)};
    return through_blocks(tokens, [&](const Block& block, int64_t layer, const at::Tensor& x) {
        const at::Tensor input = block.mixer_input(x);
        return block.finish(x, block.mixer().forward_chunk(input, tables, *cache.layers[size_t(layer)], chunk));
    });
}

at::Tensor CausalLM::hidden(const at::Tensor& tokens, ModelCache& cache, const CacheStep& step) const {
    const at::NoGradGuard no_grad;
    const at::Tensor hidden =
        through_blocks(tokens.unsqueeze(1), [&](const Block& block, int64_t layer, const at::Tensor& x) {
            return block.forward_step(x, cache.rotary, *cache.layers[size_t(layer)], step);
        });
    return hidden.squeeze(1);
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
