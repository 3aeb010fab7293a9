// SPDX-License-Identifier: Apache-2.0
// How many CPU cores belong to a rank. Launchers either leave the ranks of a node unbound (each may use all cores) or
// bind each to cores of its own; the cores to share are those that any rank of the node may use.
#pragma once

#include <cstdint>
#include <vector>

#include "comm/communicator.h"

namespace amalgam {

/// Cores by number: bit c % 64 of word c / 64.
using CoreSet = std::vector<uint64_t>;

int count(const CoreSet& cores);
/// Cores that the scheduler lets the calling thread run on.
CoreSet usable_cores();

/// An even share of the node's cores, but no more than the rank may use, and at least one.
int share_of_cores(const CoreSet& mine, const CoreSet& of_node, int ranks_of_node);
/// The same for this rank. Collective over the ranks of one node.
int share_of_cores(const Communicator& node);

}  // namespace amalgam
