// SPDX-License-Identifier: Apache-2.0
// Sharded copies of small models, for tests.
#pragma once

#include "../model/small_model.h"
#include "sharding/sharded_model.h"

namespace amalgam::test {

struct ShardedCopy {
    std::unique_ptr<CausalLM> model;
    std::unique_ptr<ShardedModel> shards;

    ShardedCopy(CausalLM& original, bool trainable, const Communicator& group, const ShardingOptions& options,
                const std::function<bool(const Parameter&)>& is_used = nullptr)
        : model(std::make_unique<CausalLM>(original.spec(), original.device(), original.compute_type(), trainable,
                                           Allocation::later)),
          shards(std::make_unique<ShardedModel>(*model, trainable, group, options, is_used)) {
        const ModelSource source(original, "the whole model");
        load_weights(*shards, {&source});
    }
};

inline ShardingOptions sharding(ShardingStrategy strategy) {
    ShardingOptions options;
    options.strategy = strategy;
    options.ranks_per_node = strategy == ShardingStrategy::hybrid ? 2 : 0;
    return options;
}

/// hybrid on nodes of two ranks, where these come out even.
inline std::vector<ShardingStrategy> strategies(const Communicator& world) {
    std::vector<ShardingStrategy> result = {ShardingStrategy::optimizer, ShardingStrategy::full};
    if (world.size() == 1 || world.size() % 2 == 0) result.push_back(ShardingStrategy::hybrid);
    return result;
}

}  // namespace amalgam::test
