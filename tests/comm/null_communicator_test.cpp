// SPDX-License-Identifier: Apache-2.0
// Without MPI_Init.
#include <gtest/gtest.h>

#include <limits>
#include <stdexcept>

#include "comm/communicator.h"
#include "system/error.h"

namespace amalgam {
namespace {

TEST(NullCommunicator, behaves_as_one_process) {
    const Communicator alone;
    EXPECT_EQ(alone.rank(), 0);
    EXPECT_EQ(alone.size(), 1);
    EXPECT_TRUE(alone.is_root());
    EXPECT_EQ(alone.get(), MPI_COMM_NULL);
    EXPECT_EQ(alone.split(5).size(), 1);
    EXPECT_EQ(alone.split_by_node().size(), 1);

    alone.barrier();
    EXPECT_EQ(alone.sum(2.5), 2.5);
    EXPECT_EQ(alone.sum(int64_t{3}), 3);
    EXPECT_EQ(alone.max(-1.0), -1.0);
    EXPECT_EQ(alone.max(int64_t{-4}), -4);
    EXPECT_EQ(alone.min(-1.0), -1.0);
    EXPECT_TRUE(alone.all(true));
    EXPECT_FALSE(alone.any(false));

    std::vector<double> values = {1, 2};
    alone.sum_in_place(values);
    alone.broadcast(std::span<double>(values));
    EXPECT_EQ(values, (std::vector<double>{1, 2}));
    EXPECT_EQ(alone.broadcast(std::string("text")), "text");
    EXPECT_EQ(alone.broadcast(int64_t{9}), 9);
    EXPECT_EQ(alone.all_gather(std::span<const double>(values)), values);
    EXPECT_EQ(alone.part_of(5), (std::pair<size_t, size_t>(0, 5)));
    std::string whole = "all";
    alone.exchange_parts(std::span<char>(whole));
    EXPECT_EQ(whole, "all");
    EXPECT_EQ(alone.gather("x"), std::vector<std::string>{"x"});
}

TEST(NullCommunicator, together_turns_exceptions_into_errors) {
    const Communicator alone;
    EXPECT_THROW(alone.together([] { throw std::runtime_error("x"); }), Error);
    try {
        alone.on_root([] { throw Error("full", ExitCode::storage); });
        FAIL() << "no exception";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::storage);
    }
}

}  // namespace
}  // namespace amalgam
