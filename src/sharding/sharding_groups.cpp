// SPDX-License-Identifier: Apache-2.0
#include "sharding/sharding_groups.h"

#include "system/error.h"

namespace amalgam {

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
