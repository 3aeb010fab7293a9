// SPDX-License-Identifier: Apache-2.0
// The whole model: embedding, blocks of any layout, final norm, head. Forward only says what is computed; training and
// evaluation decide about gradients.
#pragma once

#include <array>
#include <memory>
#include <vector>

#include "model/block.h"
#include "model/token_batch.h"
#include "parameters/weights_on_demand.h"

namespace amalgam {

/// Caches of all layers, with which sequences are continued.
struct ModelCache {
    CacheSize size;
    std::vector<std::unique_ptr<MixerCache>> layers;
    RotaryTables rotary;  // of all positions; with `dynamic` scaling for steps only

    /// MixerCache::copy in all layers.
    void copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens);
};

/// Parameters get their tensors at once, or from whoever shards the model.
enum class Allocation { now, later };

class CausalLM {
  public:
    /// Parameters are allocated but not filled (weights.h). A trainable model has fp32 masters.
    CausalLM(const ModelSpec& spec, at::Device device, at::ScalarType compute_type, bool trainable,
             Allocation allocation = Allocation::now);
    CausalLM(const CausalLM&) = delete;
    CausalLM& operator=(const CausalLM&) = delete;

    const ModelSpec& spec() const { return spec_; }
    const ModelConfig& config() const { return spec_.config; }
    ParameterStore& parameters() { return parameters_; }
    at::Device device() const { return device_; }
    at::ScalarType compute_type() const { return compute_type_; }

    /// Null where all weights are always there. The methods below ask by themselves; what else computes with weights
    /// gets them from HeldOuterWeights and HeldBlock.
    WeightsOnDemand* weights_on_demand() const { return weights_; }
    void set_weights_on_demand(WeightsOnDemand* weights) { weights_ = weights; }

    /// Tables of positions [first, first + count) in a context of `length` tokens (0: first + count). Keeps the latest,
    /// since training asks for the same positions at every step.
    RotaryTables rotary(int64_t first, int64_t count, int64_t length = 0) const;
    /// Of whole sequences, or of this rank's piece of them.
    SequencePlaces places(const TokenBatch& batch, ContextGroup* context = nullptr) const;

    /// -> hidden states after the final norm, [sequences, time, hidden]: what the head reads. The batch may be empty
    /// (weights_on_demand.h). With `context` only those of this rank's piece of the sequences.
    at::Tensor hidden(const TokenBatch& batch, ContextGroup* context = nullptr) const;
    at::Tensor logits(const TokenBatch& batch) const;

    /// -> what every block makes of its input, at `places` (int64 [n]) of the flattened tokens, or of those of this
    /// rank's piece: [layers, n, hidden]. Before the final norm. Of an empty batch [0, n, hidden].
    at::Tensor block_outputs(const TokenBatch& batch, const at::Tensor& places, ContextGroup* context = nullptr) const;

    ModelCache make_cache(const CacheSize& size) const;
    /// Bytes of a slot of `capacity` tokens.
    int64_t cache_bytes(int64_t capacity) const;

    /// As hidden(tokens), of tokens that follow those in the cache, which grows by them. `length`: tokens that the
    /// context will have (its rotation may depend on it; 0: what it has after this chunk). No gradients.
    at::Tensor hidden(const at::Tensor& tokens, ModelCache& cache, const CacheChunk& chunk, int64_t length = 0) const;
    /// One token each, tokens [batch] -> [batch, hidden], by the recurrent forms of the mixers.
    at::Tensor hidden(const at::Tensor& tokens, ModelCache& cache, const CacheStep& step) const;

    /// The parameters themselves, to find their gradients or shards: their tensors need not be there. Head and
    /// embedding are the same one if tied.
    const Parameter& head_parameter() const { return head_ ? *head_ : *embedding_; }
    const Parameter& embedding_parameter() const { return *embedding_; }
    const Parameter& norm_parameter() const { return *norm_; }

  private:
    friend class HeldOuterWeights;
    friend class HeldBlock;

    /// Embedding, all blocks and the final norm; advance(block, layer, x) is what the block makes of x.
    template <class Advance>
    at::Tensor through_blocks(const at::Tensor& tokens, Advance advance) const;

    ModelSpec spec_;
    at::Device device_;
    at::ScalarType compute_type_;
    ParameterStore parameters_;
    std::vector<Block> blocks_;
    const Parameter *embedding_, *norm_, *head_ = nullptr;
    WeightsOnDemand* weights_ = nullptr;
    mutable RotaryTables rotary_tables_;
    mutable std::array<int64_t, 3> rotary_range_ = {0, 0, 0};  // first, count, length
};

/// Embedding, final norm and head, whole as long as this lives. `next` is the block that will be held after this.
/// Collective if the model is sharded.
class HeldOuterWeights {
  public:
    explicit HeldOuterWeights(const CausalLM& model, int64_t next = WeightsOnDemand::nothing);

    /// tokens [batch, time] int64 -> embeddings [batch, time, hidden].
    at::Tensor embed(const at::Tensor& tokens) const;
    /// [batch, time, hidden]; an empty batch stays as it is.
    at::Tensor final_norm(const at::Tensor& x) const;
    /// The weights of the head [vocabulary, hidden] and of the norm [hidden]. Not of a temporary: what it gave would be
    /// read after its end.
    const at::Tensor& head() const& { return model_.head_parameter().compute; }
    const at::Tensor& norm() const& { return model_.norm_parameter().compute; }
    const at::Tensor& head() const&& = delete;
    const at::Tensor& norm() const&& = delete;

  private:
    const CausalLM& model_;
    WeightsHold hold_;
};

/// A block whose weights are whole as long as this lives. `next` is the block that will be held after it. Collective if
/// the model is sharded.
class HeldBlock {
  public:
    HeldBlock(const CausalLM& model, int64_t layer, int64_t next = WeightsOnDemand::nothing);

    const Block& operator*() const { return block_; }
    const Block* operator->() const { return &block_; }

  private:
    const Block& block_;
    WeightsHold hold_;
};

}  // namespace amalgam
