// SPDX-License-Identifier: Apache-2.0
// A disk that fills up (disk.h), and a limit on the size of a file. HDF5 may crash at the end of a process in which a
// file could not be closed, so the work is done by a child process whose end is looked at.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "small_disk.h"
#include "storage/hdf5.h"
#include "storage/write_once.h"
#include "write_safetensors.h"

namespace amalgam {
namespace {

using test::expect_error;

using test::disk_bytes;
using test::numbers;
using test::write_too_many;
using test::write_too_much;

/// Runs `work` in a child process, which then ends as every process does; returns its exit status, -1 if it was killed.
int status_of_child(const std::function<void()>& work) {
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        alarm(30);
        work();
        exit(testing::Test::HasFailure() ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

class FullDisk : public test::SmallDisk {
  protected:
    /// The space must be free again although HDF5 may still hold the file.
    void expect_full(const std::function<void(const std::filesystem::path&)>& write, const char* name) {
        const std::filesystem::path path = folder / name;
        const int64_t before = disk->free_bytes();
        EXPECT_EQ(status_of_child([&] {
                      expect_error([&] { write(path); }, ExitCode::storage, {path.string(), "No space left on device"});
                      EXPECT_FALSE(std::filesystem::exists(path));
                      EXPECT_TRUE(test::temporaries_of(path).empty());
                      EXPECT_EQ(disk->free_bytes(), before);
                      write_text_once(folder / "small.txt", "fits");
                  }),
                  0);
        EXPECT_EQ(test::content_of(folder / "small.txt"), "fits");
    }
};

TEST_P(FullDisk, text) {
    expect_full([](const auto& path) { write_text_once(path, std::string(2 * disk_bytes, 'x')); }, "text.txt");
}

TEST_P(FullDisk, safetensors) {
    expect_full(
        [](const auto& path) {
            test::write_safetensors(
                path.parent_path(),
                {{"x", SafetensorsType::f64, {static_cast<int64_t>(numbers.size())}, numbers.data()}});
        },
        "model.safetensors");
}

TEST_P(FullDisk, hdf5_dataset) {
    expect_full(write_too_much, "large.h5");
}

TEST_P(FullDisk, hdf5_metadata_at_close) {
    nearly_fill();
    expect_full(write_too_many, "many.h5");
}

TEST_P(FullDisk, later_files_work_once_there_is_space) {
    EXPECT_EQ(status_of_child([&] {
                  EXPECT_THROW(write_too_much(folder / "file.h5"), Error);
                  write_h5_once(folder / "file.h5", [](H5File& file) {
                      file.write("/x", std::vector<int64_t>{1}, std::vector<double>{7});
                  });
                  EXPECT_EQ(H5File::open(folder / "file.h5").read_doubles("/x"), std::vector<double>{7});
              }),
              0);
}

INSTANTIATE_TEST_SUITE_P(, FullDisk, test::disk_kinds, test::disk_kind_name);

class FileSizeLimit : public test::TemporaryFolder {
  protected:
    static void limit() {
        signal(SIGXFSZ, SIG_IGN);  // write() then fails with EFBIG
        const rlimit bytes{disk_bytes, disk_bytes};
        ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &bytes), 0);
    }
};

TEST_F(FileSizeLimit, is_reported_like_a_full_disk) {
    EXPECT_EQ(
        status_of_child([&] {
            limit();
            const auto text_path = folder / "text.txt", h5_path = folder / "large.h5";
            expect_error([&] { write_text_once(text_path, std::string(2 * disk_bytes, 'x')); }, ExitCode::storage,
                         {text_path.string(), "File too large"});
            expect_error([&] { write_too_much(h5_path); }, ExitCode::storage, {h5_path.string(), "File too large"});
            EXPECT_TRUE(std::filesystem::is_empty(folder));
        }),
        0);
}

}  // namespace
}  // namespace amalgam
