// SPDX-License-Identifier: Apache-2.0
// P5: a rank that throws, dies or gets stuck ends the job, in every phase, within its time limit, with a message; and
// the run can be taken up again. Every test is one run that is broken again and again on its way.
#include "faulty_run.h"

namespace amalgam {
namespace {

using test::expect_end;
using test::Finished;

class BrokenRanks : public test::FaultyRun {};

constexpr double soon = 40.0;  // seconds; a run takes a few of them

TEST_F(BrokenRanks, a_rank_that_throws_ends_the_job_in_every_phase) {
    for (const std::string point : {"stage.transfer", "align.step:step=3", "score.candidate", "score.gather",
                                    "distill.step:step=3", "checkpoint.mid_write:step=4", "evaluate.measure"}) {
        const std::string name = point.substr(0, point.find(':')), step = point.substr(name.size());
        const Finished finished = run_with(name + ":throw:rank=1" + step, 2, soon);
        expect_end(finished, int(ExitCode::failure), {"fault on purpose at " + name});
    }
    expect_recovery(2);
}

TEST_F(BrokenRanks, a_killed_rank_ends_the_job_in_every_phase) {
    for (const char* fault : {"align.step:kill:rank=1:step=3", "score.candidate:kill:rank=0:step=2",
                              "distill.step:kill:rank=1:step=3", "evaluate.measure:kill:rank=0"}) {
        const Finished finished = run_with(fault, 2, soon);
        EXPECT_NE(finished.status, 0) << fault << finished.output;
        EXPECT_NE(finished.output.find("signal 9"), std::string::npos) << fault << finished.output;
    }
    expect_recovery(2);
}

TEST_F(BrokenRanks, a_stopped_rank_is_named) {
    job.deadlines.step = "5";
    expect_end(run_with("align.step:stop:rank=1:step=3", 2, 5.0 + 30.0 + soon), int(ExitCode::communication),
               {"rank 1 (", "gave no answer", "rank 0 waits in all-reduce of gradients (align, step 3)"});
    expect_recovery(2);
}

TEST_F(BrokenRanks, a_rank_that_is_stopped_during_a_save_is_named) {
    job.deadlines.checkpoint = "5";
    job.checkpoint.background = BackgroundSaving::never;
    expect_end(run_with("checkpoint.before_fsync:stop:rank=1:step=2", 2, 5.0 + 30.0 + soon),
               int(ExitCode::communication), {"rank 1 (", "gave no answer", "rank 0 waits in", "(align)"});
    expect_recovery(2);
}

TEST_F(BrokenRanks, a_rank_that_hangs_is_named) {
    job.deadlines.step = "5";
    expect_end(run_with("distill.step:hang:rank=0:step=2", 2, 5.0 + 30.0 + soon), int(ExitCode::communication),
               {"rank 0 (", "has finished nothing for", "distill, step 2; its deadline is 5 s",
                "rank 1 waits in all-reduce of gradients"});
}

TEST_F(BrokenRanks, a_rank_that_hangs_while_others_are_done_scoring_is_named) {
    job.deadlines.setup = "8";
    expect_end(run_with("score.candidate:hang:rank=1:step=3", 2, 8.0 + 30.0 + soon), int(ExitCode::communication),
               {"rank 1 (", "has finished nothing for", "score; its deadline is 8 s", "rank 0 waits in MPI_Allreduce"});
    job.deadlines.setup = "00:30:00";
    expect_end(run(2), 0, {"score: 1 of 4 candidates to do"});
}

}  // namespace
}  // namespace amalgam
