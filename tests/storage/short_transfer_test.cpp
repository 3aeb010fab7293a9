// SPDX-License-Identifier: Apache-2.0
// System calls may transfer fewer bytes than asked for, be interrupted, or fail in the middle. These replace those of
// the C library in this program.
#include <errno.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <vector>

#include "storage/write_once.h"
#include "temporary_folder.h"
#include "write_safetensors.h"

namespace {

constexpr size_t no_limit = SIZE_MAX;
size_t transfer_limit = no_limit;  // bytes in one call
size_t disk_space = no_limit;      // bytes that may still be written
int interruptions = 0;             // calls that are still to be interrupted

bool interrupted() {
    if (interruptions == 0) return false;
    --interruptions;
    errno = EINTR;
    return true;
}

}  // namespace

extern "C" ssize_t pread(int descriptor, void* buffer, size_t bytes, off_t offset) {
    if (interrupted()) return -1;
    return syscall(SYS_pread64, descriptor, buffer, std::min(bytes, transfer_limit), offset);
}

extern "C" ssize_t write(int descriptor, const void* buffer, size_t bytes) {
    if (interrupted()) return -1;
    const size_t allowed = std::min({bytes, transfer_limit, disk_space});
    if (allowed == 0 && bytes > 0) {
        errno = ENOSPC;
        return -1;
    }
    const ssize_t count = syscall(SYS_write, descriptor, buffer, allowed);
    if (count > 0 && disk_space != no_limit) disk_space -= static_cast<size_t>(count);
    return count;
}

namespace amalgam {
namespace {

class ShortTransfer : public test::TemporaryFolder {
  protected:
    ~ShortTransfer() override { restore(); }

    static void restore() {
        transfer_limit = disk_space = no_limit;
        interruptions = 0;
    }

    std::vector<float> numbers() const {
        std::vector<float> result(1000);
        for (size_t i = 0; i < result.size(); ++i) result[i] = float(i) * 0.5f;
        return result;
    }
};

TEST_F(ShortTransfer, tensor_is_written_and_read_in_small_pieces) {
    const auto values = numbers();
    transfer_limit = 7;
    interruptions = 3;
    test::write_safetensors(folder, {{"x", SafetensorsType::f32, {1000}, values.data()}});
    interruptions = 3;
    const auto tensors = read_safetensors_folder(folder);
    std::vector<float> read(1000);
    read_tensor_bytes(tensors.at("x"), read.data());
    restore();
    EXPECT_EQ(read, values);
}

TEST_F(ShortTransfer, full_disk_in_the_middle_of_a_tensor) {
    const auto values = numbers();
    disk_space = 2000;
    std::string message;
    ExitCode code = ExitCode::success;
    try {
        test::write_safetensors(folder, {{"x", SafetensorsType::f32, {1000}, values.data()}});
    } catch (const Error& error) {
        message = error.what();
        code = error.code();
    }
    restore();
    EXPECT_EQ(code, ExitCode::storage);
    EXPECT_NE(message.find((folder / "model.safetensors").string()), std::string::npos) << message;
    EXPECT_NE(message.find("No space left on device"), std::string::npos) << message;
    EXPECT_TRUE(std::filesystem::is_empty(folder)) << "the temporary file was left";
}

TEST_F(ShortTransfer, full_disk_leaves_the_old_text) {
    const std::filesystem::path path = folder / "job.yaml";
    write_text_once(path, "old");
    disk_space = 100;
    ExitCode code = ExitCode::success;
    try {
        write_text_once(path, std::string(1000, 'n'));
    } catch (const Error& error) {
        code = error.code();
    }
    restore();
    EXPECT_EQ(code, ExitCode::storage);
    EXPECT_EQ(test::content_of(path), "old");
    EXPECT_TRUE(test::temporaries_of(path).empty());
}

}  // namespace
}  // namespace amalgam
