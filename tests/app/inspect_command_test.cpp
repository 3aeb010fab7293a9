// SPDX-License-Identifier: Apache-2.0
#include "../checkpoints/whole_checkpoint.h"
#include "../stages/small_run.h"
#include "evaluation/evaluation_file.h"
#include "selection/score_file.h"

namespace amalgam {
namespace {

using test::expect_end;

class Inspect : public test::TemporaryFolder {
  protected:
    const std::filesystem::path path = folder / "file.h5";
    test::Finished inspect() const { return test::Process({AMALGAM_PROGRAM, "inspect", path.string()}).wait(30.0); }
};

TEST_F(Inspect, scores) {
    ScoreTable table;
    table.layers = 2;
    table.candidates = {{0, 0, {0}, {{2.0, 2.0}}, {1.0}, 1.0, 0}, {1, 1, {0}, {{0.5, 0.5}}, {1.0}, 1.0, 0}};
    table.all_linear_kl = {3.0, 3.0};
    table.selection = Selection{"kl_guided", {1}, {1}, 0};
    write_scores(path, table, Provenance{});
    const auto finished = inspect();
    expect_end(finished, 0, {"amalgam scores", "/kl_standard_error", "[2, 1, 2]", "selection (kl_guided): 1"});
    EXPECT_LT(finished.output.find("layer   1  0.50000"), finished.output.find("layer   0  2.00000"));
}

TEST_F(Inspect, checkpoint) {
    const auto model = test::small_model({test::small_config(), all_linear(3, test::linear_mixer), {}}, 1, true);
    test::write_checkpoint(path, *model, nullptr, {"align", 7, 100, 42, 5});
    expect_end(inspect(), 0,
               {"amalgam checkpoint", "gated_delta_net x 3", "data_cursor       42",
                "/model/model.layers.0.linear_attn.A_log", "float32"});
}

TEST_F(Inspect, evaluation) {
    HeldOutSet set{at::zeros({1, 3}, at::kLong), {{1}}};
    write_evaluation(path, {{"student", {{1, 1, 0}, {1, 0, 0}, {0.5, 0.5, 0.5}}}}, set, 1, {"softmax"}, Provenance{});
    expect_end(inspect(), 0, {"amalgam evaluation", "student", "perplexity 2.7183", "0.5000 nat/token", "100.0000 %"});
}

TEST_F(Inspect, what_is_not_there_or_damaged) {
    expect_end(inspect(), int(ExitCode::bad_input), {path.string()});
    test::put(path, "not HDF5 at all");
    expect_end(inspect(), int(ExitCode::damaged_file), {path.string()});
}

}  // namespace
}  // namespace amalgam
