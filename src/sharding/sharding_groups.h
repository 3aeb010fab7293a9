// SPDX-License-Identifier: Apache-2.0
// Who shards with whom.
#pragma once

#include "comm/communicator.h"
#include "options/choices.h"

namespace amalgam {

struct ShardingGroups {
    Communicator all;
    Communicator shards;    // each has one shard of everything
    Communicator replicas;  // has the same shard; one rank unless hybrid
};

/// Collective over `group`. `ranks_per_node` (hybrid): 0: as many as share memory. Throws Error(bad_input) if the nodes
/// have different numbers of ranks.
ShardingGroups make_sharding_groups(ShardingStrategy strategy, const Communicator& group, int64_t ranks_per_node = 0);

}  // namespace amalgam
