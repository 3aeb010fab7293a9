// SPDX-License-Identifier: Apache-2.0
// Whole runs of the rule that trains gates: killed, stopped, on several ranks, with models spread over them.
#include "selection/score_file.h"
#include "selection/selection.h"
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class JointGatesRun : public test::SmallRun {
  protected:
    JointGatesRun() {
        job.select.rule = "joint_gates";
        job.select.options["budget"] = "2";
        job.score.gates.steps = 6;
        job.score.gates.learning_rate = 0.2;
        job.score.recall.kinds = {"passages"};  // needs no wording
        job.score.recall.lengths = {64, 80};
        job.distill.tokens = 0;
        job.evaluate.sequences = 0;
        job.checkpoint.every_steps = 2;
    }
    ~JointGatesRun() override { unsetenv("AMALGAM_FAULT"); }

    void expect_same_scores(const std::filesystem::path& expected) const {
        const Names ignored = {"/seconds", "/rank", "/gates/seconds"};
        EXPECT_EQ(differing_datasets(expected / "scores.h5", result("scores.h5"), ignored), Names{}) << job.name;
        EXPECT_EQ(differing_datasets(expected / "selection.h5", result("selection.h5")), Names{}) << job.name;
    }

    /// A run with models spread over so many ranks has the scores of the run in the folder `expected`.
    void expect_same_when_sharded(int ranks, const std::filesystem::path& expected) {
        job.name = "sharded";
        job.sharding.strategy = ShardingSetting::full;
        job.sharding.activations = Activations::recompute;
        job.score.ranks_per_candidate = ranks;
        expect_end(run(ranks), 0, {"score: sharding full over " + std::to_string(ranks) + " ranks", "finished in"});
        expect_same_scores(expected);
    }
};

TEST_F(JointGatesRun, keeps_the_layers_of_the_largest_gates_for_any_budget) {
    expect_end(run(1), 0, {"score: gates, step 6/6", "select (joint_gates)"});
    const ScoreTable table = read_scores(result("scores.h5"));
    ASSERT_TRUE(table.gates.has_value());
    ASSERT_EQ(table.gates->steps(), 6);
    const std::vector<int64_t> order = table.gates->order();
    ASSERT_EQ(table.candidates.size(), 5U);
    for (size_t c = 0; c < 5; ++c) {
        const std::vector<int64_t> largest(order.begin(), order.end() - std::ptrdiff_t(c));
        EXPECT_EQ(table.candidates[c].candidate.layout, keep_softmax(4, job.student.mixer, largest));
    }
    const std::vector<int64_t> two(order.begin(), order.begin() + 2), three(order.begin(), order.begin() + 3);
    EXPECT_EQ(read_selection(result("selection.h5")).order, two);
    job.reuse = run_folder().string();
    job.name = "three";
    job.select.options["budget"] = "3";
    expect_end(run(1), 0, {"score: done before"});
    EXPECT_EQ(read_selection(result("selection.h5")).order, three);
    job.name = "states";
    job.score.gates.objective = GateObjective::hidden_states;
    job.score.gates.penalty_schedule = PenaltySchedule::fixed;
    job.score.gates.penalty = 0.1;
    expect_end(run(1), 0,
               {"this job scores in another way", "score.gates.objective: was kl, now hidden_states",
                "score.gates.penalty_schedule: was rising, now fixed", "score: gates, step 6/6: error of the states"});
    EXPECT_EQ(read_scores(result("scores.h5")).gates->state_error.size(), 6U);
}

/// Models that are spread over ranks, of which some have no questions while others do.
TEST_F(JointGatesRun, compares_states_of_sharded_models_to_the_same_bits) {
    job.score.gates.objective = GateObjective::hidden_states;
    job.name = "alone";
    expect_end(run(1), 0, {"finished in"});
    const auto alone = run_folder();
    expect_same_when_sharded(3, alone);
}

TEST_F(JointGatesRun, gives_the_same_bits_on_several_ranks_and_after_a_death) {
    job.name = "alone";
    expect_end(run(1), 0, {"finished in"});
    const auto alone = run_folder();
    job.name = "killed";
    setenv("AMALGAM_FAULT", "score.gates:kill:rank=1:step=3", 1);
    EXPECT_NE(run(2).status, 0);
    unsetenv("AMALGAM_FAULT");
    expect_end(run(3), 0, {"score: gates go on from step 2", "finished in"});
    expect_same_scores(alone);
    expect_same_when_sharded(2, alone);
}

}  // namespace
}  // namespace amalgam
