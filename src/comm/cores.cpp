// SPDX-License-Identifier: Apache-2.0
#include "comm/cores.h"

#include <sched.h>

#include <algorithm>
#include <bit>
#include <thread>

namespace amalgam {

namespace {

// The kernel refuses a set that is smaller than its own; no machine is near this one.
constexpr size_t words = 8192 / 64;

}  // namespace

int count(const CoreSet& cores) {
    int total = 0;
    for (const uint64_t word : cores) total += std::popcount(word);
    return total;
}

CoreSet usable_cores() {
    CoreSet cores(words, 0);
    if (sched_getaffinity(0, words * sizeof(uint64_t), reinterpret_cast<cpu_set_t*>(cores.data())) == 0) return cores;
    for (unsigned c = 0; c < std::thread::hardware_concurrency(); ++c) cores[c / 64] |= uint64_t{1} << (c % 64);
    return cores;
}

int share_of_cores(const CoreSet& mine, const CoreSet& of_node, int ranks_of_node) {
    return std::max(1, std::min(count(mine), count(of_node) / ranks_of_node));
}

int share_of_cores(const Communicator& node) {
    const CoreSet mine = usable_cores();
    CoreSet of_node = mine;
    node.unite_in_place(of_node);
    return share_of_cores(mine, of_node, node.size());
}

}  // namespace amalgam
