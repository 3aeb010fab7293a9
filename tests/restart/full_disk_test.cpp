// SPDX-License-Identifier: Apache-2.0
// P8: a disk that fills up during a run or turns read-only.
#include <optional>

#include "../stages/small_run.h"
#include "../storage/disk.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_end;

class FullDisk : public test::SmallRun, public testing::WithParamInterface<test::DiskKind> {
  protected:
    void SetUp() override {
        job.evaluate.sequences = 0;
        fs::create_directories(job.output);
        disk.emplace(GetParam(), job.output, 8 << 20, AMALGAM_SIMULATED_DISK_LIBRARY);
        if (!disk->is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here: " << disk->reason();
    }
    void TearDown() override { disk.reset(); }

    std::optional<test::Disk> disk;
};

TEST_P(FullDisk, ends_the_run_and_spares_what_is_there) {
    expect_end(run(1), 0, {});
    const auto expected = results();
    fs::remove(result("checkpoints/distill.h5"));
    const auto before = results();
    disk->fill(40000);  // enough for logs, not for a checkpoint
    expect_end(run(2), int(ExitCode::storage), {result("checkpoints/distill.h5").string(), "No space left on device"});
    EXPECT_EQ(results(), before);
    EXPECT_TRUE(test::temporaries_of(result("checkpoints/distill.h5")).empty()) << "the space must be free again";

    disk->free_again();
    expect_end(run(2), 0, {"distill: finished"});
    fs::create_directories(folder / "expected");
    test::put(folder / "expected" / "distill.h5", expected.at("checkpoints/distill.h5"));
    EXPECT_EQ(test::differing_datasets(folder / "expected" / "distill.h5", result("checkpoints/distill.h5")),
              std::vector<std::string>{});
}

TEST_P(FullDisk, a_file_system_that_turns_read_only_ends_the_run_and_spares_what_is_there) {
    expect_end(run(1), 0, {});
    fs::remove(result("checkpoints/distill.h5"));
    const auto before = results();
    disk->set_read_only(true);
    expect_end(run(2), int(ExitCode::storage), {run_folder().string(), "Read-only file system"});
    EXPECT_EQ(results(), before);
    disk->set_read_only(false);
    expect_end(run(2), 0, {"score: done before", "distill: finished"});
}

TEST_P(FullDisk, a_run_that_cannot_even_begin_says_so) {
    disk->fill(0);
    const auto finished = run(2);
    expect_end(finished, int(ExitCode::storage), {run_folder().string()});
}

INSTANTIATE_TEST_SUITE_P(, FullDisk, test::disk_kinds, test::disk_kind_name);

}  // namespace
}  // namespace amalgam
