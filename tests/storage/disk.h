// SPDX-License-Identifier: Apache-2.0
// A folder as a small disk that can be filled and made read-only: a tmpfs where mounting one is permitted, and one that
// is simulated everywhere (simulated_disk.h), so that no machine passes without having tried.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include "simulated_disk.h"
#include "temporary_folder.h"

namespace amalgam::test {

enum class DiskKind { mounted, simulated };

class Disk {
  public:
    /// `preloaded`: library of simulated_disk.cpp for the programs that the test starts from now on; empty if the test
    /// itself is linked with it.
    Disk(DiskKind kind, const std::filesystem::path& folder, int64_t bytes, const std::string& preloaded = "")
        : kind_(kind),
          folder_(std::filesystem::canonical(folder)),
          bytes_(bytes),
          size_("size=" + std::to_string(bytes)) {
        if (kind == DiskKind::mounted) {
            is_there_ = mount("tmpfs", folder_.c_str(), "tmpfs", 0, size_.c_str()) == 0;
            if (!is_there_) reason_ = strerror(errno);
            return;
        }
        is_there_ = true;
        setenv(disk_folder_variable, folder_.c_str(), 1);
        setenv(disk_bytes_variable, std::to_string(bytes).c_str(), 1);
        if (!preloaded.empty()) setenv("LD_PRELOAD", preloaded.c_str(), 1);
    }
    ~Disk() {
        if (kind_ == DiskKind::mounted) {
            if (is_there_) umount2(folder_.c_str(), MNT_DETACH);
            return;
        }
        for (const char* variable : {disk_folder_variable, disk_bytes_variable, disk_read_only_variable, "LD_PRELOAD"})
            unsetenv(variable);
    }
    Disk(const Disk&) = delete;
    Disk& operator=(const Disk&) = delete;

    /// False: mounting is not permitted here, for this reason.
    bool is_there() const { return is_there_; }
    const std::string& reason() const { return reason_; }

    int64_t free_bytes() const {
        if (kind_ == DiskKind::simulated) return bytes_ - stored_bytes_below(folder_.string());
        struct statvfs status {};
        statvfs(folder_.c_str(), &status);
        return int64_t(status.f_bavail) * int64_t(status.f_bsize);
    }

    /// Leaves so many bytes, until free_again().
    void fill(int64_t left) const { put(filler(), std::string(size_t(free_bytes() - left), 'x')); }
    void free_again() const { std::filesystem::remove(filler()); }

    void set_read_only(bool yes) const {
        if (kind_ == DiskKind::mounted) {
            const unsigned long flags = MS_REMOUNT | (yes ? MS_RDONLY : 0);
            ASSERT_EQ(mount("tmpfs", folder_.c_str(), "tmpfs", flags, size_.c_str()), 0) << strerror(errno);
        } else if (yes) {
            setenv(disk_read_only_variable, "1", 1);
        } else {
            unsetenv(disk_read_only_variable);
        }
    }

  private:
    std::filesystem::path filler() const { return folder_ / "filler"; }

    DiskKind kind_;
    std::filesystem::path folder_;
    int64_t bytes_;
    std::string size_, reason_;
    bool is_there_ = false;
};

/// Both kinds, for tests with a parameter of this type.
inline const auto disk_kinds = testing::Values(DiskKind::mounted, DiskKind::simulated);
inline std::string disk_kind_name(const testing::TestParamInfo<DiskKind>& kind) {
    return kind.param == DiskKind::mounted ? "mounted" : "simulated";
}

}  // namespace amalgam::test
