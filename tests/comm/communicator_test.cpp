// SPDX-License-Identifier: Apache-2.0
#include "comm/communicator.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "system/error.h"
#include "system/provenance.h"

namespace amalgam {
namespace {

class Communicators : public testing::Test {
  protected:
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const int rank = world.rank(), ranks = world.size();
};

TEST_F(Communicators, knows_rank_and_size) {
    int expected_rank = -1, expected_size = -1, relation = -1;
    MPI_Comm_rank(MPI_COMM_WORLD, &expected_rank);
    MPI_Comm_size(MPI_COMM_WORLD, &expected_size);
    MPI_Comm_compare(world.get(), MPI_COMM_WORLD, &relation);
    EXPECT_EQ(rank, expected_rank);
    EXPECT_EQ(ranks, expected_size);
    EXPECT_EQ(world.is_root(), rank == 0);
    EXPECT_EQ(relation, MPI_CONGRUENT) << "same processes, but messages of its own";
}

TEST_F(Communicators, copies_share_one_mpi_communicator) {
    const Communicator copy = world;
    EXPECT_EQ(copy.get(), world.get());
    copy.barrier();
}

TEST_F(Communicators, reductions) {
    const int64_t triangle = int64_t{ranks} * (ranks + 1) / 2;
    EXPECT_EQ(world.sum(rank + 1.0), double(triangle));
    EXPECT_EQ(world.sum(int64_t{rank + 1}), triangle);
    EXPECT_EQ(world.sum(int64_t{1} << 53), (int64_t{1} << 53) * ranks);
    EXPECT_EQ(world.max(-double(rank)), 0.0);
    EXPECT_EQ(world.max(int64_t{rank}), ranks - 1);
    EXPECT_EQ(world.min(-double(rank)), -double(ranks - 1));
    EXPECT_TRUE(world.all(true));
    EXPECT_FALSE(world.all(rank != ranks - 1));
    EXPECT_TRUE(world.any(rank == ranks - 1));
    EXPECT_FALSE(world.any(false));
}

TEST_F(Communicators, not_a_number_on_one_rank_is_the_maximum_of_all) {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    for (int place = 0; place < ranks; ++place) {
        EXPECT_TRUE(std::isnan(world.max(rank == place ? nan : 1.0)));
        EXPECT_TRUE(std::isnan(world.min(rank == place ? nan : 1.0)));
    }
    const double infinity = std::numeric_limits<double>::infinity();
    EXPECT_EQ(world.max(-infinity), -infinity);
}

TEST_F(Communicators, arrays_are_summed_in_place) {
    std::vector<double> doubles(1000);
    std::iota(doubles.begin(), doubles.end(), rank);
    world.sum_in_place(doubles);
    std::vector<float> floats(7, float(rank));
    world.sum_in_place(floats);
    const double ranks_sum = ranks * (ranks - 1) / 2;
    for (size_t i = 0; i < doubles.size(); ++i) EXPECT_EQ(doubles[i], double(i) * ranks + ranks_sum);
    for (float value : floats) EXPECT_EQ(value, float(ranks_sum));
    world.sum_in_place(std::span<double>());
}

TEST_F(Communicators, broadcasts_from_every_root) {
    for (int root = 0; root < ranks; ++root) {
        const std::string wanted = root % 2 == 0 ? text("from rank ", root, std::string(100 * root, 'x')) : "";
        EXPECT_EQ(world.broadcast(rank == root ? wanted : "something else", root), wanted);
        EXPECT_EQ(world.broadcast(int64_t{rank} << 40, root), int64_t{root} << 40);
        std::vector<double> doubles(3, rank);
        world.broadcast(std::span<double>(doubles), root);
        EXPECT_EQ(doubles, std::vector<double>(3, root));
        std::vector<float> floats(3, float(rank));
        world.broadcast(std::span<float>(floats), root);
        EXPECT_EQ(floats, std::vector<float>(3, float(root)));
        std::string bytes(2, char('a' + rank));
        world.broadcast(std::span<char>(bytes), root);
        EXPECT_EQ(bytes, std::string(2, char('a' + root)));
    }
}

TEST_F(Communicators, exchanges_parts_of_any_size) {
    for (const size_t bytes : {size_t(0), size_t(1), size_t(2), size_t(7), size_t(1000)}) {
        const auto value = [](size_t i) { return char('a' + i % 26); };
        std::string whole(bytes, '?');
        const auto [first, count] = world.part_of(bytes);
        for (size_t i = first; i < first + count; ++i) whole[i] = value(i);
        world.exchange_parts(std::span<char>(whole));
        for (size_t i = 0; i < bytes; ++i) EXPECT_EQ(whole[i], value(i)) << i << " of " << bytes;
    }
}

TEST_F(Communicators, gathers_in_rank_order) {
    const std::vector<double> mine = {double(rank), 0.5};
    const auto doubles = world.all_gather(std::span<const double>(mine));
    const std::vector<int64_t> number = {int64_t{rank} * 10};
    const auto integers = world.all_gather(std::span<const int64_t>(number));
    ASSERT_EQ(doubles.size(), 2u * ranks);
    ASSERT_EQ(integers.size(), size_t(ranks));
    for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(doubles[2 * r], r);
        EXPECT_EQ(doubles[2 * r + 1], 0.5);
        EXPECT_EQ(integers[r], 10 * r);
    }
}

TEST_F(Communicators, strings_of_different_lengths_reach_the_root) {
    for (int root = 0; root < ranks; ++root) {
        const auto strings = world.gather(std::string(rank, 'a' + rank), root);
        if (rank != root) {
            EXPECT_TRUE(strings.empty());
            continue;
        }
        ASSERT_EQ(strings.size(), size_t(ranks));
        for (int r = 0; r < ranks; ++r) EXPECT_EQ(strings[r], std::string(r, 'a' + r));
    }
}

TEST_F(Communicators, splits_by_color_in_rank_order) {
    const Communicator parity = world.split(rank % 2);
    EXPECT_EQ(parity.size(), rank % 2 == 0 ? (ranks + 1) / 2 : ranks / 2);
    EXPECT_EQ(parity.rank(), rank / 2);
    int64_t expected = 0;
    for (int r = rank % 2; r < ranks; r += 2) expected += r;
    EXPECT_EQ(parity.sum(int64_t{rank}), expected);
}

TEST_F(Communicators, ranks_of_this_machine_are_one_node) {
    const Communicator node = world.split_by_node();
    const std::string host = host_name();
    int64_t same = 0;
    for (int r = 0; r < ranks; ++r) same += world.broadcast(host, r) == host;
    EXPECT_EQ(node.size(), same);
}

/// Every way of making a communicator must give it MPI_ERRORS_RETURN.
TEST_F(Communicators, errors_are_returned_not_fatal) {
    for (const Communicator& made : {world, world.split(0), world.split_by_node()}) {
        MPI_Errhandler handler = MPI_ERRHANDLER_NULL;
        ASSERT_EQ(MPI_Comm_get_errhandler(made.get(), &handler), MPI_SUCCESS);
        EXPECT_EQ(handler, MPI_ERRORS_RETURN);
        MPI_Errhandler_free(&handler);
    }
}

TEST_F(Communicators, truncated_message_becomes_an_exception) {
    const long sent[4] = {1, 2, 3, 4};
    long received[1] = {0};
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Isend(sent, 4, MPI_LONG, rank, 17, world.get(), &request), "MPI_Isend");
    try {
        check_mpi(MPI_Recv(received, 1, MPI_LONG, rank, 17, world.get(), MPI_STATUS_IGNORE), "MPI_Recv");
        ADD_FAILURE() << "a message of 4 numbers was received in a buffer of 1";
    } catch (const Error& error) {
        const std::string message = error.what();
        EXPECT_EQ(error.code(), ExitCode::communication);
        EXPECT_NE(message.find("MPI_Recv failed on rank " + std::to_string(rank)), std::string::npos) << message;
        EXPECT_NE(message.find(host_name()), std::string::npos) << message;
        EXPECT_NE(message.find("MPI_ERR_TRUNCATE"), std::string::npos) << message;
    }
    MPI_Wait(&request, MPI_STATUS_IGNORE);
}

TEST_F(Communicators, invalid_root_becomes_an_exception) {
    try {
        world.broadcast(int64_t{1}, ranks);
        ADD_FAILURE() << "a broadcast from rank " << ranks << " of " << ranks;
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::communication);
        EXPECT_NE(std::string(error.what()).find("MPI_Bcast"), std::string::npos);
    }
}

}  // namespace
}  // namespace amalgam
