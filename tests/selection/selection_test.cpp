// SPDX-License-Identifier: Apache-2.0
#include "selection/selection.h"

#include <cmath>

#include "../storage/temporary_folder.h"
#include "made_up_scores.h"

namespace amalgam {
namespace {

using Layers = std::vector<int64_t>;
using test::expect_error;

constexpr const char* mixer = "gated_delta_net";

SelectJob job(const std::string& rule, const Options& options) {
    SelectJob select;
    select.rule = rule;
    for (const auto& [name, value] : options) select.options.at(name) = value;
    return select;
}

TEST(SelectLayers, by_the_rule_of_the_job) {
    const auto scored = test::made_up_scores(4, {2, 0, 3, 1}).scored();
    const Selection guided = select_layers(job("kl_guided", {{"budget", "2"}}), 4, mixer, scored);
    EXPECT_EQ(guided.rule, "kl_guided");
    EXPECT_EQ(guided.options, "budget: \"2\"");
    EXPECT_EQ(guided.order, (Layers{2, 0})) << "layers, not numbers of candidates";
    EXPECT_EQ(guided.layers(), (Layers{0, 2}));
    EXPECT_EQ(guided.layout, keep_softmax(4, mixer, {0, 2}));

    const Selection named = select_layers(job("explicit", {{"layers", Layers{3, 1}}}), 4, mixer, {});
    EXPECT_EQ(named.options, "layers: [3, 1]");
    EXPECT_EQ(named.order, (Layers{3, 1}));
    EXPECT_EQ(named.layers(), (Layers{1, 3}));

    const Selection by_lot = select_layers(job("random", {{"budget", "50%"}, {"seed", int64_t{5}}}), 4, mixer, {});
    EXPECT_EQ(by_lot.options, "budget: \"50%\", seed: 5");
    EXPECT_EQ(by_lot.layers().size(), 2U);
    EXPECT_EQ(select_layers(job("all_linear", {}), 4, mixer, {}).layout, all_linear(4, mixer));
}

TEST(SelectLayers, scores_of_another_model_are_refused) {
    const auto scored = test::made_up_scores(4, {2, 0, 3, 1}).scored();
    expect_error([&] { select_layers(job("kl_guided", {}), 5, mixer, scored); }, ExitCode::damaged_file,
                 {"4 layers", "has 5"});
    expect_error([&] { select_layers(job("best", {}), 4, mixer, scored); }, ExitCode::bad_input,
                 {"select.rule", "best"});
}

TEST(SelectLayers, a_candidate_without_a_finite_score_is_not_ranked) {
    for (const double kl : {std::nan(""), HUGE_VAL}) {
        auto scored = test::made_up_scores(4, {2, 0, 3, 1}).scored();
        EXPECT_NO_THROW(select_layers(job("kl_guided", {}), 4, mixer, scored));
        scored[1].score = -kl;
        expect_error([&] { select_layers(job("kl_guided", {}), 4, mixer, scored); }, ExitCode::diverged,
                     {"layer 0", "cannot be ranked", "score.optimizer.learning_rate"});
    }
}

class SelectionFile : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "selection.h5", scores = folder / "scores.h5";
};

TEST_F(SelectionFile, gives_the_selection_back) {
    for (const Layers& order : {Layers{2, 0}, Layers{}}) {
        write_selection(path, {"random", "budget: \"2\", seed: 7", order, keep_softmax(3, mixer, order)}, Provenance{});
        const Selection found = read_selection(path);
        EXPECT_EQ(found.rule, "random");
        EXPECT_EQ(found.options, "budget: \"2\", seed: 7");
        EXPECT_EQ(found.order, order);
        EXPECT_EQ(found.layout, keep_softmax(3, mixer, order));
    }
    EXPECT_EQ(H5File::open(path).read_integers("/layers"), Layers{}) << "a selection of nothing is a selection";
}

TEST_F(SelectionFile, has_the_curve_of_a_budget_that_the_scores_decide) {
    Selection selection{"recall_guided", "budget: auto", {2}, keep_softmax(3, mixer, {2})};
    for (int64_t kept = 0; kept <= 3; ++kept)
        selection.curve.push_back({kept, 0.3 - 0.1 * double(kept), 0.5, double(kept) / 3.0, 256.0 * double(kept)});
    write_selection(path, selection, Provenance{});
    EXPECT_EQ(read_selection(path).curve, selection.curve);
    const std::string table = table_of_curve(selection);
    EXPECT_NE(table.find("*   1    0.20000    0.50000   0.333       256"), std::string::npos) << table;
    EXPECT_FALSE(H5File::open(path).has("/curve/far_kl"));
    for (CurvePoint& point : selection.curve) point.far_kl = 0.25 * double(point.kept);
    write_selection(path, selection, Provenance{});
    EXPECT_EQ(read_selection(path).curve, selection.curve);
    const std::string with_far = table_of_curve(selection);
    EXPECT_NE(with_far.find("*   1    0.20000    0.25000    0.50000   0.333       256"), std::string::npos) << with_far;
    for (CurvePoint& point : selection.curve) point.recall = point.recall_kl = NAN;  // nothing was asked
    const std::string without = table_of_curve(selection);
    EXPECT_NE(without.find("softmax layers: KL, KL of far context, bytes of keys"), std::string::npos) << without;
    EXPECT_NE(without.find("*   1    0.20000    0.25000       256"), std::string::npos) << without;
    {
        H5File file = H5File::update(path);
        const double other = 0.0;
        file.write_rows("/curve/kl", 0, 1, &other);
    }
    expect_error([&] { read_selection(path); }, ExitCode::damaged_file, {path.string(), "/curve/kl"});
}

TEST_F(SelectionFile, that_is_damaged_is_named) {
    write_selection(path, {"explicit", "", {1}, keep_softmax(3, mixer, {2})}, Provenance{});
    EXPECT_EQ(read_selection(path).layers(), Layers{2});
    {
        H5File file = H5File::update(path);
        const int32_t other = 1;
        file.write_rows("/layers", 0, 1, &other);
    }
    expect_error([&] { read_selection(path); }, ExitCode::damaged_file, {path.string(), "/layers"});
    std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
    expect_error([&] { read_selection(path); }, ExitCode::damaged_file, {path.string()});
}

TEST_F(SelectionFile, is_found_in_scores_of_version_1) {
    for (const bool scored : {true, false}) {
        const ScoreTable table = scored ? test::made_up_scores(3, {0, 1, 2}) : ScoreTable{};
        test::write_scores_of_version_1(scores, table, 3, Layers{2, 0});
        const auto found = selection_in_scores(scores, mixer);
        ASSERT_TRUE(found.has_value());
        EXPECT_EQ(found->rule, scored ? "kl_guided" : "explicit");
        EXPECT_EQ(found->order, (Layers{2, 0}));
        EXPECT_EQ(found->layout, keep_softmax(3, mixer, {0, 2}));
        EXPECT_EQ(read_scores(scores).candidates.size(), scored ? 3U : 0U);
    }
    test::write_scores_of_version_1(scores, test::made_up_scores(3, {0, 1, 2}), 3, std::nullopt);
    EXPECT_FALSE(selection_in_scores(scores, mixer).has_value());
    write_scores(scores, test::made_up_scores(3, {0, 1, 2}), Provenance{});
    EXPECT_FALSE(selection_in_scores(scores, mixer).has_value());
}

}  // namespace
}  // namespace amalgam
