// SPDX-License-Identifier: Apache-2.0
// P7: a gradient that is not a number on one rank changes no weight, and rank, step and tensor are named. That such an
// update would have changed weights is shown in optimizer/update_guard_test.cpp.
#include "faulty_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class NotANumber : public test::FaultyRun {
  protected:
    NotANumber() {
        job.checkpoint.every_steps = 1;
        job.checkpoint.keep_last = 20;
        job.checkpoint.background =
            BackgroundSaving::never;  // so that it is known which are there when the run ends early
        job.evaluate.sequences = 0;
    }
    std::filesystem::path distilled(int64_t step) const {
        return StageCheckpoints(result("checkpoints"), "distill", 1).at_step(step);
    }
};

TEST_F(NotANumber, changes_no_weight_is_named_and_not_saved) {
    // Killed before its end, which would remove the checkpoints on the way.
    const auto finished = run_with("distill.gradient:nan:rank=1:step=2,distill.step:kill:rank=0:step=4", 2, 60.0);
    for (const char* part : {"distill: step 2: not finite", "first in model.", "from rank 1 (update skipped)"})
        EXPECT_NE(finished.output.find(part), std::string::npos) << part << " is missing in:\n" << finished.output;
    EXPECT_NE(differing_datasets(distilled(1), distilled(2)), Names{}) << "a good step";
    EXPECT_FALSE(std::filesystem::exists(distilled(3))) << "nobody knows yet whether these weights are good";
    // With NaN in a weight it could not have been written.
    EXPECT_NE(differing_datasets(distilled(2), distilled(4)), Names{}) << "the step after it";
}

TEST_F(NotANumber, is_counted_to_the_end_of_the_stage) {
    const auto finished = run_with("align.gradient:nan:rank=1:step=1,align.gradient:nan:rank=0:step=3", 2, 60.0);
    expect_end(finished, 0, {"from rank 1", "from rank 0", "align: 6 steps", "2 updates skipped"});
    const std::string metrics = test::content_of(result("metrics.csv"));
    EXPECT_NE(metrics.find(",skipped_updates\n"), std::string::npos) << metrics;
    EXPECT_NE(metrics.find(",2\n"), std::string::npos) << metrics;
}

TEST_F(NotANumber, too_often_ends_the_run_and_spares_the_checkpoints) {
    job.max_skipped_updates = 1;
    const auto finished = run_with("distill.gradient:nan:rank=1:step=2,distill.gradient:nan:rank=0:step=3", 2, 60.0);
    expect_end(finished, int(ExitCode::diverged), {"2 updates were skipped", "max_skipped_updates is 1"});
    EXPECT_TRUE(std::filesystem::exists(distilled(2)));
    for (const int64_t step : {3, 4}) EXPECT_FALSE(std::filesystem::exists(distilled(step))) << step;
    expect_end(run_with("distill.gradient:nan:rank=0:step=2,distill.gradient:nan:rank=1:step=3", 2, 60.0),
               int(ExitCode::diverged), {"distill: goes on from step 2", "2 updates were skipped"});
    expect_end(run(2), 0, {"align: done before", "distill: goes on from step 2", "distill: finished"});
}

}  // namespace
}  // namespace amalgam
