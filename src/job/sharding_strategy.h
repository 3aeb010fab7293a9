// SPDX-License-Identifier: Apache-2.0
// What of a model is spread over the ranks: the strategies of ZeRO and FSDP (Rajbhandari et al., arXiv 1910.02054; Zhao
// et al., arXiv 2304.11277). A library without LibTorch, so that job files can be read and estimated with it.
#pragma once

#include <string>

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

}  // namespace amalgam
