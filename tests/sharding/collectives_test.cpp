// SPDX-License-Identifier: Apache-2.0
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "sharding/tensor_collectives.h"

namespace amalgam {
namespace {

class CollectivesOfRanks : public testing::Test {
  protected:
    static constexpr int64_t n = 37;

    /// What rank `rank` brings: small integers, exact in every type and sum.
    static at::Tensor values(int64_t rank, int64_t count, at::ScalarType type) {
        return (at::arange(count, at::kLong).remainder(7) + 2 * rank).to(type);
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const int64_t ranks = world.size(), rank = world.rank();
    std::unique_ptr<TensorCollectives> collectives = make_tensor_collectives(world, at::kCPU);
};

TEST_F(CollectivesOfRanks, all_gather_puts_the_ranks_one_behind_the_other) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong}) {
        const at::Tensor whole = at::empty({ranks * n}, type);
        collectives->all_gather_into(whole, values(rank, n, type)).wait();
        for (int64_t r = 0; r < ranks; ++r) EXPECT_TRUE(at::equal(whole.narrow(0, r * n, n), values(r, n, type)));

        const at::Tensor in_place = at::zeros({ranks * n}, type);
        const at::Tensor own = in_place.narrow(0, rank * n, n);
        own.copy_(values(rank, n, type));
        collectives->all_gather_into(in_place, own).wait();
        EXPECT_TRUE(at::equal(in_place, whole));
    }
}

TEST_F(CollectivesOfRanks, reduce_scatter_leaves_each_rank_its_part_of_the_sum) {
    for (const at::ScalarType type : {at::kFloat, at::kBFloat16, at::kLong}) {
        at::Tensor expected = at::zeros({ranks * n}, at::kLong);
        for (int64_t r = 0; r < ranks; ++r) expected += values(r, ranks * n, at::kLong);
        const at::Tensor own = at::empty({n}, type);
        collectives->reduce_scatter_into(own, values(rank, ranks * n, type)).wait();
        EXPECT_TRUE(at::equal(own, expected.narrow(0, rank * n, n).to(type))) << type;
    }
}

TEST_F(CollectivesOfRanks, bfloat16_sums_are_sums_of_bfloat16) {
    const at::Tensor own = at::empty({1}, at::kBFloat16);
    // 256 + 1 is not a bf16 number: a sum of the bits would be far off, a rounded sum is 256 or 258.
    const at::Tensor whole = at::full({ranks}, rank == 0 ? 256.0 : 1.0, at::kBFloat16);
    collectives->reduce_scatter_into(own, whole).wait();
    EXPECT_NEAR(own.item<double>(), 256.0 + double(ranks - 1), 2.0);
}

TEST_F(CollectivesOfRanks, all_reduce_sums_at_once_or_later) {
    at::Tensor now = at::full({n}, double(rank + 1)), later = at::full({n}, rank + 1, at::kLong);
    Pending pending = collectives->start_all_reduce(later);
    collectives->all_reduce(now);
    pending.wait();
    EXPECT_TRUE(at::equal(now, at::full({n}, double(ranks * (ranks + 1) / 2))));
    EXPECT_TRUE(at::equal(later, at::full({n}, ranks * (ranks + 1) / 2, at::kLong)));
}

/// Many under way, of two instances whose calls come in different orders on different ranks, and MPI by the program
/// meanwhile.
TEST_F(CollectivesOfRanks, instances_do_not_disturb_each_other) {
    const auto others = make_tensor_collectives(world, at::kCPU);
    std::vector<at::Tensor> gathered, sums;
    std::vector<Pending> pending;
    const auto gather = [&](int64_t i) {
        gathered.push_back(at::empty({ranks * n}, at::kLong));
        pending.push_back(collectives->all_gather_into(gathered.back(), values(rank + i, n, at::kLong)));
    };
    const auto reduce = [&](int64_t i) {
        sums.push_back(at::empty({n}, at::kLong));
        pending.push_back(others->reduce_scatter_into(sums.back(), at::full({ranks * n}, rank + i, at::kLong)));
    };
    for (int64_t i = 0; i < 20; ++i) {
        if (rank % 2 == 0) gather(i);
        reduce(i);
        if (rank % 2 == 1) gather(i);
        if (i % 5 == 0) world.barrier();
    }
    for (Pending& p : pending) p.wait();
    for (int64_t i = 0; i < 20; ++i) {
        for (int64_t r = 0; r < ranks; ++r)
            EXPECT_TRUE(at::equal(gathered[size_t(i)].narrow(0, r * n, n), values(r + i, n, at::kLong)));
        EXPECT_TRUE(at::equal(sums[size_t(i)], at::full({n}, ranks * (ranks - 1) / 2 + ranks * i, at::kLong)));
    }
}

TEST_F(CollectivesOfRanks, waiting_is_counted) {
    const double before = collectives->seconds_waited();
    const at::Tensor whole = at::empty({ranks * n});
    Pending pending = collectives->all_gather_into(whole, at::ones({n}));
    pending.wait();
    const double once = collectives->seconds_waited();
    EXPECT_TRUE(ranks == 1 || once > before);
    pending.wait();
    EXPECT_EQ(collectives->seconds_waited(), once) << "there is nothing to wait for any more";
}

}  // namespace
}  // namespace amalgam
