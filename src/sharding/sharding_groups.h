// SPDX-License-Identifier: Apache-2.0
// Who shards with whom. The strategies are those of ZeRO and FSDP (Rajbhandari et al., arXiv 1910.02054; Zhao et al.,
// arXiv 2304.11277).
#pragma once

#include <string>

#include "comm/communicator.h"

namespace amalgam {

enum class ShardingStrategy {
    none,       // every rank has everything
    optimizer,  // weights whole; gradients, masters and moments sharded (ZeRO-2)
    full,       // weights too; whole only while they are used (ZeRO-3)
    hybrid      // full within a node; nodes are replicas of each other
};

/// Throws Error(bad_input) for unknown names; "auto" is not one of them.
ShardingStrategy parse_sharding_strategy(const std::string& name);
std::string describe(ShardingStrategy strategy);

struct ShardingGroups {
    Communicator all;
    Communicator shards;    // each has one shard of everything
    Communicator replicas;  // has the same shard; one rank unless hybrid
};

/// Collective over `group`. `ranks_per_node` (hybrid): 0: as many as share memory. Throws Error(bad_input) if the nodes
/// have different numbers of ranks.
ShardingGroups make_sharding_groups(ShardingStrategy strategy, const Communicator& group, int64_t ranks_per_node = 0);

}  // namespace amalgam
