// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <stdexcept>

#include "comm/communicator.h"
#include "system/error.h"

namespace amalgam {
namespace {

class Together : public testing::Test {
  protected:
    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    const int rank = world.rank(), ranks = world.size();

    /// Expects an Error of exactly this text and code on every rank.
    static void expect_error(const std::function<void()>& action, const std::string& message, ExitCode code) {
        try {
            action();
            ADD_FAILURE() << "no exception";
        } catch (const Error& error) {
            EXPECT_EQ(error.what(), message);
            EXPECT_EQ(error.code(), code);
        }
    }
};

TEST_F(Together, success_on_all_ranks_is_silent) {
    int done = 0;
    EXPECT_NO_THROW(world.together([&] { ++done; }));
    EXPECT_EQ(done, 1);
}

TEST_F(Together, failure_of_any_rank_is_everybodys) {
    for (int place = 0; place < ranks; ++place)
        expect_error(
            [&] {
                world.together([&] {
                    if (rank == place) throw Error(text("disk of rank ", rank, " is full"), ExitCode::storage);
                });
            },
            text("disk of rank ", place, " is full"), ExitCode::storage);
}

TEST_F(Together, lowest_failing_rank_is_heard) {
    const int first = ranks / 2;
    expect_error(
        [&] {
            world.together([&] {
                if (rank >= first)
                    throw Error(text("rank ", rank), rank == first ? ExitCode::damaged_file : ExitCode::storage);
            });
        },
        text("rank ", first), ExitCode::damaged_file);
}

TEST_F(Together, other_exceptions_count_as_failure) {
    expect_error(
        [&] {
            world.together([&] {
                if (rank == ranks - 1) throw std::runtime_error("of the standard library");
            });
        },
        "of the standard library", ExitCode::failure);
    expect_error([&] { world.together([] { throw 3; }); }, "an exception of unknown type", ExitCode::failure);
}

TEST_F(Together, on_root_runs_once_and_tells_all) {
    int done = 0;
    world.on_root([&] { ++done; });
    EXPECT_EQ(world.sum(int64_t{done}), 1);
    EXPECT_EQ(done, rank == 0 ? 1 : 0);
    expect_error([&] { world.on_root([] { throw Error("job.yaml: no such file", ExitCode::bad_input); }); },
                 "job.yaml: no such file", ExitCode::bad_input);
}

TEST_F(Together, communicator_still_works_afterwards) {
    EXPECT_THROW(world.together([] { throw Error("x"); }), Error);
    EXPECT_EQ(world.sum(int64_t{1}), ranks);
}

}  // namespace
}  // namespace amalgam
