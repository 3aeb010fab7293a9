// SPDX-License-Identifier: Apache-2.0
// A model whose parameters are spread over the ranks of a group (fully sharded data parallelism). The unit is a block;
// embedding, final norm and head are one more. A unit's weights are gathered when asked for, the next unit's meanwhile,
// and released after use.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "model/causal_lm.h"
#include "model/weights.h"
#include "sharding/flat_parameters.h"
#include "sharding/sharding_groups.h"
#include "sharding/tensor_collectives.h"

namespace amalgam {

struct ShardingOptions {
    ShardingStrategy strategy = ShardingStrategy::full;  // not none
    bool gather_ahead = true;
    bool reduce_in_bfloat16 = false;  // gradients travel in half the bytes, and are rounded
    int64_t ranks_per_node = 0;       // hybrid; 0: as many as share memory
};

class ShardedModel : public WeightsOnDemand {
  public:
    /// `model` must have no tensors yet (Allocation::later) and outlive this; it asks here for its weights from now on.
    /// Parameters for which `is_used` is false have a shard, but are never gathered. Collective over `group`.
    ShardedModel(CausalLM& model, bool trainable, const Communicator& group, const ShardingOptions& options,
                 const std::function<bool(const Parameter&)>& is_used = nullptr);
    ~ShardedModel() override;
    ShardedModel(const ShardedModel&) = delete;
    ShardedModel& operator=(const ShardedModel&) = delete;

    void acquire(int64_t layer, int64_t next) override;
    void release(int64_t layer) override;
    void prefetch(int64_t layer) override;
    bool everywhere(bool value) override { return groups_.all.all(value); }

    /// To be called when shards were written: what was gathered before is out of date.
    void weights_changed();

    CausalLM& model() const { return model_; }
    const ShardingGroups& groups() const { return groups_; }
    const ShardingOptions& options() const { return options_; }

    /// All flat buffers, of all units, and those of one layer (-1: outside the blocks).
    std::vector<FlatParameters*> flats() const;
    std::vector<FlatParameters*> flats_of(int64_t layer) const;
    FlatParameters& flat_of(const Parameter& parameter) const;

    double seconds_waited() const { return gathers_->seconds_waited(); }
    /// Blocks whose weights are in memory, now and at most so far.
    int64_t blocks_gathered() const { return blocks_gathered_; }
    int64_t most_blocks_gathered() const { return most_blocks_gathered_; }

  private:
    enum class State { absent, on_the_way, there };
    struct Unit {
        std::vector<std::unique_ptr<FlatParameters>> used, unused;
        State state = State::absent;
        int64_t holds = 0;
        std::vector<Pending> pending;
    };
    Unit& unit(int64_t layer) { return units_[size_t(layer + 1)]; }
    void start_gathering(int64_t layer);
    /// A teacher's embedding and head are in use while most of a step is computed, and never change.
    bool stays_whole(int64_t layer) const {
        return options_.strategy == ShardingStrategy::optimizer || (!trainable_ && layer == outside_blocks);
    }

    CausalLM& model_;
    bool trainable_;
    ShardingOptions options_;
    ShardingGroups groups_;
    std::vector<Unit> units_;  // [1 + layer]
    int64_t blocks_gathered_ = 0, most_blocks_gathered_ = 0;
    std::unique_ptr<TensorCollectives> gathers_;
};

/// Fills the shards from the first source that has each tensor, one tensor at a time. Every rank asks for every tensor,
/// in the same order. Errors as of load_weights of a whole model.
void load_weights(ShardedModel& shards, const std::vector<const TensorSource*>& sources);

}  // namespace amalgam
