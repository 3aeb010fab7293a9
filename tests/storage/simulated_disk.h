// SPDX-License-Identifier: Apache-2.0
// What the two sides of a simulated disk agree on: the calls that are limited (simulated_disk.cpp, linked into a test
// or preloaded into the program it starts) and the test that sets the limit (disk.h). All of it goes by the
// environment.
#pragma once

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <string>

namespace amalgam::test {

constexpr const char* disk_folder_variable = "AMALGAM_SIMULATED_DISK";  // not set: no call is limited
constexpr const char* disk_bytes_variable = "AMALGAM_SIMULATED_DISK_BYTES";
constexpr const char* disk_read_only_variable = "AMALGAM_SIMULATED_DISK_READ_ONLY";  // set: nothing may be changed

/// Bytes in [begin, end) of a file that take place on the disk: its holes take none. `path` may be a link of
/// /proc/self/fd; the file is opened anew, so that no other reader's position moves.
inline int64_t stored_bytes(const char* path, int64_t begin, int64_t end) {
    const int file = int(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    if (file < 0) return 0;
    int64_t bytes = 0;
    while (begin < end) {
        const int64_t data = lseek(file, begin, SEEK_DATA);
        if (data < 0 || data >= end) break;
        begin = std::min<int64_t>(end, lseek(file, data, SEEK_HOLE));
        bytes += begin - data;
    }
    close(file);
    return bytes;
}

/// Of all files below `folder`, and of those that this process has open although their names are gone.
inline int64_t stored_bytes_below(const std::string& folder) {
    namespace fs = std::filesystem;
    std::error_code ignored;
    int64_t bytes = 0;
    for (auto entry = fs::recursive_directory_iterator(folder, ignored); entry != fs::recursive_directory_iterator();
         entry.increment(ignored))
        if (entry->is_regular_file(ignored)) bytes += stored_bytes(entry->path().c_str(), 0, INT64_MAX);
    for (const auto& entry : fs::directory_iterator("/proc/self/fd", ignored)) {
        const std::string target = fs::read_symlink(entry.path(), ignored).string();
        if (target.starts_with(folder + "/") && target.ends_with(" (deleted)"))
            bytes += stored_bytes(entry.path().c_str(), 0, INT64_MAX);
    }
    return bytes;
}

}  // namespace amalgam::test
