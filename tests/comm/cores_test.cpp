// SPDX-License-Identifier: Apache-2.0
#include "comm/cores.h"

#include <gtest/gtest.h>
#include <sched.h>

namespace amalgam {
namespace {

CoreSet cores(int first, int number) {
    CoreSet set(8192 / 64, 0);
    for (int c = first; c < first + number; ++c) set[size_t(c) / 64] |= uint64_t{1} << (c % 64);
    return set;
}

/// Binds the calling thread to one core for as long as it lives.
class Bound {
  public:
    explicit Bound(int core) {
        sched_getaffinity(0, sizeof before_, &before_);
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(core, &one);
        sched_setaffinity(0, sizeof one, &one);
    }
    ~Bound() { sched_setaffinity(0, sizeof before_, &before_); }

  private:
    cpu_set_t before_;
};

std::vector<int> numbers(const CoreSet& set) {
    std::vector<int> result;
    for (int c = 0; c < 8192; ++c)
        if (set[size_t(c) / 64] >> (c % 64) & 1) result.push_back(c);
    return result;
}

TEST(ShareOfCores, unbound_ranks_divide_the_node) {
    EXPECT_EQ(share_of_cores(cores(0, 64), cores(0, 64), 4), 16);
    EXPECT_EQ(share_of_cores(cores(0, 10), cores(0, 10), 3), 3);
}

TEST(ShareOfCores, bound_ranks_are_not_divided_again) {
    EXPECT_EQ(share_of_cores(cores(48, 16), cores(0, 64), 4), 16);
    EXPECT_EQ(share_of_cores(cores(300, 2), cores(0, 512), 4), 2);  // and never use more than they may
}

TEST(ShareOfCores, is_at_least_one) {
    EXPECT_EQ(share_of_cores(cores(0, 2), cores(0, 2), 8), 1);
}

TEST(ShareOfCores, the_node_has_the_cores_of_all_its_ranks) {
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    CoreSet all = usable_cores();  // the launcher may have bound every rank already
    world.unite_in_place(all);
    const std::vector<int> free_to_use = numbers(all);
    const int distinct = std::min(world.size(), int(free_to_use.size()));
    const Bound bound(free_to_use[size_t(world.rank() % distinct)]);
    EXPECT_EQ(count(usable_cores()), 1);
    CoreSet of_node = usable_cores();
    world.unite_in_place(of_node);
    EXPECT_EQ(count(of_node), distinct);
    EXPECT_EQ(share_of_cores(world), 1);
}

}  // namespace
}  // namespace amalgam
