// SPDX-License-Identifier: Apache-2.0
// P8: a disk that fills up during a run or turns read-only, by a small tmpfs where mounting is permitted.
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "../stages/small_run.h"

namespace amalgam {
namespace {

namespace fs = std::filesystem;
using test::expect_end;

class FullDisk : public test::SmallRun {
  protected:
    void SetUp() override {
        job.evaluate.sequences = 0;
        fs::create_directories(job.output);
        if (mount("tmpfs", job.output.c_str(), "tmpfs", 0, "size=8m") != 0)
            GTEST_SKIP() << "mounting a tmpfs is not permitted here: " << strerror(errno);
        mounted_ = true;
    }
    void TearDown() override {
        if (mounted_) umount2(job.output.c_str(), MNT_DETACH);
    }

    /// Leaves so many bytes.
    void fill(int64_t left) const {
        struct statvfs status {};
        statvfs(job.output.c_str(), &status);
        const int64_t free = int64_t(status.f_bavail) * int64_t(status.f_bsize);
        test::put(filler(), std::string(size_t(free - left), 'x'));
    }
    void read_only(bool yes) const {
        ASSERT_EQ(mount("tmpfs", job.output.c_str(), "tmpfs", MS_REMOUNT | (yes ? MS_RDONLY : 0), "size=8m"), 0)
            << strerror(errno);
    }
    fs::path filler() const { return fs::path(job.output) / "filler"; }

  private:
    bool mounted_ = false;
};

TEST_F(FullDisk, ends_the_run_and_spares_what_is_there) {
    expect_end(run(1), 0, {});
    const auto expected = results();
    fs::remove(result("checkpoints/distill.h5"));
    const auto before = results();
    fill(40000);  // enough for logs, not for a checkpoint
    expect_end(run(2), int(ExitCode::storage), {result("checkpoints/distill.h5").string(), "No space left on device"});
    EXPECT_EQ(results(), before);
    EXPECT_FALSE(fs::exists(result("checkpoints/distill.h5.tmp"))) << "the space must be free again";

    fs::remove(filler());
    expect_end(run(2), 0, {"distill: finished"});
    fs::create_directories(folder / "expected");
    test::put(folder / "expected" / "distill.h5", expected.at("checkpoints/distill.h5"));
    EXPECT_EQ(test::differing_datasets(folder / "expected" / "distill.h5", result("checkpoints/distill.h5")),
              std::vector<std::string>{});
}

TEST_F(FullDisk, a_file_system_that_turns_read_only_ends_the_run_and_spares_what_is_there) {
    expect_end(run(1), 0, {});
    fs::remove(result("checkpoints/distill.h5"));
    const auto before = results();
    read_only(true);
    expect_end(run(2), int(ExitCode::storage), {run_folder().string(), "Read-only file system"});
    EXPECT_EQ(results(), before);
    read_only(false);
    expect_end(run(2), 0, {"score: done before", "distill: finished"});
}

TEST_F(FullDisk, a_run_that_cannot_even_begin_says_so) {
    fill(0);
    const auto finished = run(2);
    expect_end(finished, int(ExitCode::storage), {run_folder().string()});
}

}  // namespace
}  // namespace amalgam
