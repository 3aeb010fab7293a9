// SPDX-License-Identifier: Apache-2.0
// A disk of one megabyte, and HDF5 files that are larger.
#pragma once

#include <gtest/gtest.h>

#include <optional>

#include "disk.h"
#include "storage/hdf5.h"

namespace amalgam::test {

constexpr int64_t disk_bytes = 1 << 20;
inline const std::vector<double> numbers(disk_bytes / 4, 1.0);  // twice the disk

inline void write_too_much(const std::filesystem::path& path) {
    write_h5_once(path, [](H5File& file) {
        file.write("/small", std::vector<int64_t>{3}, std::vector<double>{1, 2, 3});
        file.write("/large", std::vector<int64_t>{static_cast<int64_t>(numbers.size())},
                   std::span<const double>(numbers));
    });
}

/// Many small objects stay in HDF5's cache, and are written only when the file is closed. To be used where only a few
/// pages of the disk are left.
inline void write_too_many(const std::filesystem::path& path) {
    write_h5_once(path, [](H5File& file) {
        for (int i = 0; i < 3000; ++i) file.set_attribute("/", "number" + std::to_string(i), int64_t{i});
    });
}

class SmallDisk : public TemporaryFolder, public testing::WithParamInterface<DiskKind> {
  protected:
    void SetUp() override {
        disk.emplace(GetParam(), folder, disk_bytes);
        if (!disk->is_there()) GTEST_SKIP() << "mounting a tmpfs is not permitted here: " << disk->reason();
    }
    void TearDown() override { disk.reset(); }

    /// Leaves a few pages, so that a file can be begun.
    void nearly_fill() const { disk->fill(5 * 4096); }

    std::optional<Disk> disk;
};

}  // namespace amalgam::test
