// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/stage_checkpoints.h"

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "whole_checkpoint.h"

namespace amalgam {
namespace {

using test::expect_error;

class CheckpointsOfStages : public test::TemporaryFolder {
  protected:
    const StageCheckpoints files{folder, "align", 2};
    void touch(const std::filesystem::path& path) const { test::put(path, "x"); }
};

TEST_F(CheckpointsOfStages, the_latest_is_that_of_the_highest_step) {
    EXPECT_FALSE(files.latest().has_value());
    for (const int64_t step : {200, 1000, 30}) touch(files.at_step(step));
    touch(folder / "distill-00009000.h5");
    touch(folder / "align-00009999.h5.tmp");
    EXPECT_EQ(files.at_step(200).filename(), "align-00000200.h5");
    EXPECT_EQ(files.latest(), files.at_step(1000));
}

TEST_F(CheckpointsOfStages, old_ones_are_removed) {
    for (const int64_t step : {1, 2, 3, 4}) touch(files.at_step(step));
    touch(folder / "distill-00000001.h5");
    files.purge();
    EXPECT_FALSE(std::filesystem::exists(files.at_step(2)));
    EXPECT_TRUE(std::filesystem::exists(files.at_step(3)));
    EXPECT_TRUE(std::filesystem::exists(files.at_step(4)));
    touch(files.finished());
    files.purge();
    EXPECT_FALSE(files.latest().has_value());
    EXPECT_TRUE(files.is_finished());
    EXPECT_TRUE(std::filesystem::exists(folder / "distill-00000001.h5")) << "another stage's";
}

TEST_F(CheckpointsOfStages, those_of_every_so_many_steps_stay) {
    const StageCheckpoints some(folder, "align", 1, 100);
    for (const int64_t step : {50, 100, 150, 200, 250, 300000000, 300000050}) touch(some.at_step(step));
    some.purge();
    const auto there = [&](int64_t step) { return std::filesystem::exists(some.at_step(step)); };
    EXPECT_TRUE(there(100) && there(200) && there(300000000) && there(300000050));
    EXPECT_FALSE(there(50) || there(150) || there(250));
    EXPECT_EQ(some.latest(), some.at_step(300000050)) << "nine digits come after eight";
    touch(some.finished());
    some.purge();
    EXPECT_TRUE(there(100) && there(200) && there(300000000));
    EXPECT_FALSE(there(300000050));
}

TEST_F(CheckpointsOfStages, swapped_files_are_found) {
    const auto model =
        test::small_model({test::small_config("llama"), keep_softmax(3, test::linear_mixer, {1}), {}}, 1, true);
    const auto write = [&](const std::filesystem::path& path, const char* stage, int64_t step) {
        test::write_checkpoint(path, *model, nullptr, {stage, step, 0, 0, 0});
    };
    write(files.at_step(200), "align", 200);
    write(files.at_step(400), "align", 400);
    write(files.finished(), "align", 600);
    EXPECT_EQ(files.open(files.at_step(200))->state().step, 200);
    EXPECT_EQ(files.open(files.finished())->state().step, 600);

    std::filesystem::rename(files.at_step(200), folder / "swap");
    std::filesystem::rename(files.at_step(400), files.at_step(200));
    std::filesystem::rename(folder / "swap", files.at_step(400));
    for (const int64_t step : {200, 400})
        expect_error([&] { files.open(files.at_step(step)); }, ExitCode::damaged_file,
                     {files.at_step(step).string(), "align step " + std::to_string(600 - step), "swapped"});
    write(files.finished(), "distill", 600);
    expect_error([&] { files.open(files.finished()); }, ExitCode::damaged_file, {files.finished().string(), "distill"});
}

}  // namespace
}  // namespace amalgam
