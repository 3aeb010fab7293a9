// SPDX-License-Identifier: Apache-2.0
// Tests that go wrong on purpose, for the tests of the harness.
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <stdexcept>
#include <thread>

namespace {

bool on_last_rank() {
    int rank = 0, ranks = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    return rank == ranks - 1;
}

TEST(Misbehaving, fails_on_the_last_rank) {
    if (on_last_rank()) {
        EXPECT_EQ(7, 8) << "seven is not eight";
    }
}

TEST(Misbehaving, throws_on_the_last_rank) {
    if (on_last_rank()) throw std::runtime_error("thrown by the test");
}

TEST(Misbehaving, hangs_on_the_last_rank) {
    if (on_last_rank()) std::this_thread::sleep_for(std::chrono::hours(1));
}

TEST(Misbehaving, leaves_the_others_in_a_barrier) {
    ASSERT_FALSE(on_last_rank()) << "left early";
    MPI_Barrier(MPI_COMM_WORLD);
}

class MisbehavingSuite : public testing::Test {
  protected:
    static void TearDownTestSuite() {
        if (on_last_rank()) ADD_FAILURE() << "tearing down";
    }
};

TEST_F(MisbehavingSuite, passes_itself) {
    SUCCEED();
}

}  // namespace
