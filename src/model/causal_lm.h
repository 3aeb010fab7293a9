// SPDX-License-Identifier: Apache-2.0
// The whole model: embedding, blocks of any layout, final norm, head. Forward only says what is computed; training and
// evaluation decide about gradients.
#pragma once

#include <memory>
#include <vector>

#include "model/block.h"
#include "parameters/weights_on_demand.h"

namespace amalgam {

/// Caches of all layers and the number of tokens seen.
struct ModelCache {
    std::vector<std::unique_ptr<MixerCache>> layers;
    int64_t tokens = 0;
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

    /// Null where all weights are always there. The methods below ask by themselves; whoever uses a block, the head or
    /// the embedding directly holds their weights.
    WeightsOnDemand* weights_on_demand() const { return weights_; }
    void set_weights_on_demand(WeightsOnDemand* weights) { weights_ = weights; }

    /// tokens [batch, time] int64 -> embeddings [batch, time, hidden]. An empty batch (here and below) computes
    /// nothing, but asks for the same weights.
    at::Tensor embed(const at::Tensor& tokens) const;
    const std::vector<Block>& blocks() const { return blocks_; }
    /// Keeps the latest tables, since training asks for the same positions at every step.
    RotaryTables rotary(int64_t first, int64_t count) const;

    /// Hidden states after the final norm, [batch, time, hidden]: what the head reads.
    at::Tensor hidden(const at::Tensor& tokens, ModelCache* cache = nullptr) const;
    at::Tensor final_norm(const at::Tensor& x) const;
    /// The head's weight, [vocabulary, hidden], and the embedding's: the same parameter if tied.
    const Parameter& head() const { return head_ ? *head_ : *embedding_; }
    const Parameter& embedding() const { return *embedding_; }
    const Parameter& norm() const { return *norm_; }
    at::Tensor logits(const at::Tensor& tokens, ModelCache* cache = nullptr) const;

    ModelCache make_cache(int64_t batch) const;

  private:
    ModelSpec spec_;
    at::Device device_;
    at::ScalarType compute_type_;
    ParameterStore parameters_;
    std::vector<Block> blocks_;
    const Parameter *embedding_, *norm_, *head_ = nullptr;
    WeightsOnDemand* weights_ = nullptr;
    mutable RotaryTables rotary_tables_;
    mutable std::pair<int64_t, int64_t> rotary_range_ = {0, 0};  // first, count
};

}  // namespace amalgam
