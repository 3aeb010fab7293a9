// SPDX-License-Identifier: Apache-2.0
#include "sharding/sharding_groups.h"

#include "system/error.h"

namespace amalgam {

ShardingStrategy parse_sharding_strategy(const std::string& name) {
    for (const auto strategy :
         {ShardingStrategy::none, ShardingStrategy::optimizer, ShardingStrategy::full, ShardingStrategy::hybrid})
        if (name == describe(strategy)) return strategy;
    throw Error(text("sharding.strategy: \"", name, "\" is not known (none, optimizer, full, hybrid, auto)"),
                ExitCode::bad_input);
}

std::string describe(ShardingStrategy strategy) {
    switch (strategy) {
        case ShardingStrategy::none:
            return "none";
        case ShardingStrategy::optimizer:
            return "optimizer";
        case ShardingStrategy::full:
            return "full";
        case ShardingStrategy::hybrid:
            return "hybrid";
    }
    throw Error("unknown sharding strategy");
}

ShardingGroups make_sharding_groups(ShardingStrategy strategy, const Communicator& group, int64_t ranks_per_node) {
    if (strategy != ShardingStrategy::hybrid) return {group, group, {}};
    const Communicator node =
        ranks_per_node > 0 ? group.split(int(group.rank() / ranks_per_node)) : group.split_by_node();
    const int64_t most = group.max(int64_t{node.size()}), least = -group.max(-int64_t{node.size()});
    if (most != least)
        throw Error(text("sharding.strategy: hybrid needs the same number of ranks on every node (there are ", least,
                         " to ", most, "); use full, or start as many ranks on each"),
                    ExitCode::bad_input);
    return {group, node, group.split(node.rank())};
}

}  // namespace amalgam
