// SPDX-License-Identifier: Apache-2.0
// Jobs with a rank that is stuck: they must end within the deadline (2 s) + 30 s, with exit code 6 and a diagnosis.
#include <mpi.h>

#include "../stages/process.h"
#include "comm/rank_status.h"
#include "system/error.h"

namespace amalgam {
namespace {

using test::expect_end;
using test::Finished;

Finished run(const std::string& how, int rank, int ranks = 3) {
    return test::Process(test::mpi_command(ranks, {AMALGAM_STUCK_RANKS, how, std::to_string(rank)})).wait(32.0);
}

constexpr int communication = int(ExitCode::communication);

TEST(WatchdogDeadlines, a_stopped_rank_is_named) {
    expect_end(run("stop", 1), communication,
               {"rank 1 (", ") gave no answer", "ranks 0, 2 wait in MPI_Barrier (test, step 7)", "not there: rank 1"});
}

TEST(WatchdogDeadlines, also_if_it_is_rank_0) {
    expect_end(run("stop", 0), communication, {"rank 0 (", ") gave no answer", "ranks 1, 2 wait in MPI_Barrier"});
}

TEST(WatchdogDeadlines, a_rank_that_computes_for_ever_is_named) {
    expect_end(run("loop", 2), communication,
               {"rank 2 (", ") has finished nothing for", "its deadline is 2 s", "ranks 0, 1 wait in MPI_Barrier"});
}

TEST(WatchdogDeadlines, a_job_of_one_rank_ends_too) {
    expect_end(run("loop", 0, 1), communication, {"rank 0 (", ") has finished nothing for"});
}

TEST(WatchdogDeadlines, ranks_in_different_collectives_are_named) {
    expect_end(run("elsewhere", 1), communication,
               {"rank 1 waits in MPI_Allreduce", "ranks 0, 2 wait in MPI_Barrier", "every rank waits for another one"});
}

TEST(WatchdogDeadlines, a_dead_rank_leaves_nobody_behind) {
    EXPECT_NE(run("leave", 1).status, 0);
}

#ifdef OPEN_MPI
TEST(WatchdogDeadlines, a_dead_rank_is_named_where_the_launcher_lets_the_others_live) {
    const Finished finished =
        test::Process(test::mpi_command(3, {"--enable-recovery", AMALGAM_STUCK_RANKS, "leave", "1"})).wait(32.0);
    EXPECT_NE(finished.output.find(") gave no answer"), std::string::npos) << finished.output;
    EXPECT_EQ(finished.output.find("came through"), std::string::npos) << finished.output;
}
#endif

TEST(WatchdogDeadlines, an_error_of_a_link_ends_the_job) {
    expect_end(run("link", 1), communication, {"the link is broken", "the link is given up"});
}

TEST(WatchdogDeadlines, a_process_that_cannot_even_give_up_leaves) {
    expect_end(run("deaf", 1), communication, {"the link is broken", "is stuck as well; this process leaves"});
}

TEST(WatchdogDeadlines, a_rank_that_gets_on_may_take_its_time) {
    expect_end(run("busy", 1), 0, {"all ranks came through"});
}

TEST(WatchdogDeadlines, a_job_that_was_suspended_goes_on) {
    expect_end(run("suspend", 0), 0, {"all ranks came through"});
}

RankStatus status_of(bool waits, double seconds) {
    return make_status(
        {.phase = Phase::step, .stage = "distill", .operation = waits ? "MPI_Allreduce" : nullptr, .step = 12}, seconds,
        10.0);
}

TEST(Diagnosis, says_nothing_while_somebody_gets_on) {
    EXPECT_EQ(diagnosis({status_of(true, 100.0), status_of(false, 9.0)}), "");
    EXPECT_EQ(diagnosis({status_of(true, 100.0), status_of(true, 9.0)}), "") << "the last one has just arrived";
    RankStatus unlimited = status_of(false, 1e6);
    unlimited.deadline = 0.0;
    EXPECT_EQ(diagnosis({unlimited, status_of(true, 1e6)}), "");
}

TEST(Diagnosis, stays_short_for_many_ranks) {
    std::vector<std::optional<RankStatus>> ranks(10000, status_of(true, 100.0));
    for (size_t r = 0; r < ranks.size(); r += 2) ranks[r] = status_of(false, 100.0);
    for (size_t r = 1; r < ranks.size(); r += 2) ranks[r]->step = int64_t(r);
    ranks[5000] = std::nullopt;
    EXPECT_LT(diagnosis(ranks).size(), 10000U);
}

TEST(Diagnosis, ranks_are_listed_as_ranges) {
    EXPECT_EQ(list_ranks({3}), "rank 3");
    EXPECT_EQ(list_ranks({0, 1, 3, 5, 6, 7}), "ranks 0, 1, 3, 5-7");
}

}  // namespace
}  // namespace amalgam
