// SPDX-License-Identifier: Apache-2.0
// Whole runs whose scores decide how many layers are kept, or exchange layers of a set, on one and on several ranks.
#include <map>

#include "selection/score_file.h"
#include "selection/selection.h"
#include "small_run.h"

namespace amalgam {
namespace {

using test::differing_datasets;
using test::expect_end;
using Names = std::vector<std::string>;

class SetsOfLayers : public test::SmallRun {
  protected:
    SetsOfLayers() {
        job.score.recall.kinds = {"passages"};  // needs no wording
        job.score.recall.lengths = {64};
        job.distill.tokens = 0;
        job.evaluate.sequences = 0;
    }

    void expect_same_on_two_ranks(const Names& parts = {"finished in"}) {
        job.name = "alone";
        expect_end(run(1), 0, parts);
        const auto alone = run_folder();
        job.name = "two";
        expect_end(run(2), 0, {"finished in"});
        EXPECT_EQ(differing_datasets(alone / "scores.h5", result("scores.h5"), test::times_and_places), Names{});
        EXPECT_EQ(differing_datasets(alone / "selection.h5", result("selection.h5")), Names{});
    }
};

TEST_F(SetsOfLayers, an_automatic_budget_keeps_what_its_bound_needs) {
    for (const char* rule : {"recall_guided", "removal_rounds"}) {
        job.output = (folder / rule).string();
        job.select.rule = rule;
        job.select.options["budget"] = "auto";
        job.select.options["kl_at_most"] = 1e-7;
        expect_same_on_two_ranks({"every layer keeps softmax", "distill: skipped", "finished in"});
        const Selection all = read_selection(result("selection.h5"));
        EXPECT_EQ(all.order.size(), 4U) << "every linear layer costs something";
        ASSERT_EQ(all.curve.size(), 5U);
        EXPECT_NEAR(all.curve[4].kl, 0.0, 1e-7);
        EXPECT_EQ(all.curve[4].cache_bytes, 4 * 2.0 * 2 * 8 * 2) << "4 layers, keys and values, 2 heads of 8, bf16";
        job.reuse = run_folder().string();
        job.name = "between";
        job.select.options["kl_at_most"] = (all.curve[1].kl + all.curve[2].kl) / 2;
        expect_end(run(1), 0, {"score: done before"});
        const Selection some = read_selection(result("selection.h5"));
        if (all.curve[2].kl > all.curve[3].kl && all.curve[1].kl > all.curve[2].kl)
            EXPECT_EQ(some.order, std::vector<int64_t>(all.order.begin(), all.order.begin() + 2)) << rule;
        EXPECT_EQ(some.curve, all.curve);
        job.reuse = "";
    }
}

TEST_F(SetsOfLayers, exchanges_do_not_depend_on_the_number_of_ranks) {
    job.select.rule = "swaps";
    job.select.options["budget"] = "2";
    expect_same_on_two_ranks();
    const ScoreTable table = read_scores(result("scores.h5"), job.student.mixer);
    const Layout& kept = read_selection(result("selection.h5")).layout;
    double best = -HUGE_VAL, chosen = -HUGE_VAL;
    for (const CandidateResult& one : table.candidates) {
        if (softmax_layers(one.candidate.layout).size() == 2) best = std::max(best, one.score());
        if (one.candidate.layout == kept) chosen = one.score();
    }
    EXPECT_EQ(chosen, best) << "of all sets of two that were measured";
    job.reuse = run_folder().string();
    job.name = "three";
    job.select.options["budget"] = "3";
    expect_end(run(1), 0, {"select.budget: swaps measures other candidates with another one"});
}

class RacingSets : public SetsOfLayers, public testing::WithParamInterface<const char*> {};

TEST_P(RacingSets, choose_as_without_a_race_on_any_number_of_ranks) {
    job.select.rule = GetParam();
    job.select.options["budget"] = "2";
    job.score.validation_sequences = 12;
    job.score.recall.questions = 8;
    job.name = "full";
    expect_end(run(1), 0, {"finished in"});
    const ScoreTable full = read_scores(result("scores.h5"), job.student.mixer);
    for (const CandidateResult& one : full.candidates) EXPECT_EQ(one.measured_share, 1.0);
    const std::vector<int64_t> order = read_selection(result("selection.h5")).order;
    job.reuse = run_folder().string();
    job.select.options["race_errors"] = 0.5;
    expect_same_on_two_ranks();
    EXPECT_EQ(read_selection(result("selection.h5")).order, order);
    const ScoreTable raced = read_scores(result("scores.h5"), job.student.mixer);
    ASSERT_EQ(raced.candidates.size(), full.candidates.size());
    const auto kept = [](const CandidateResult& one) { return softmax_layers(one.candidate.layout).size(); };
    std::map<size_t, double> best;  // of those that were measured to the end, by the number of kept layers
    for (const CandidateResult& one : raced.candidates) {
        if (one.measured_share < 1.0) continue;
        double& highest = best.try_emplace(kept(one), one.score()).first->second;
        highest = std::max(highest, one.score());
    }
    int64_t early = 0;
    for (const CandidateResult& one : raced.candidates) {
        if (one.measured_share == 1.0) continue;
        ++early;
        EXPECT_LT(one.score(), best.at(kept(one))) << describe(one.candidate);
    }
    EXPECT_GT(early, 0);
    const std::string log = test::content_of(result("log.txt"));
    EXPECT_NE(log.find(text(early, " of ", raced.candidates.size(), " candidates left early")), std::string::npos)
        << log;
}

INSTANTIATE_TEST_SUITE_P(, RacingSets, testing::Values("swaps", "removal_rounds"),
                         [](const auto& rule) { return std::string(rule.param); });

}  // namespace
}  // namespace amalgam
