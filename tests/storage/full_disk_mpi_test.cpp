// SPDX-License-Identifier: Apache-2.0
// Parallel HDF5 cleans up inside MPI_Finalize: the run must get past it after a file could not be written. The exit
// status of the test program is what matters here.
#include <gtest/gtest.h>

#include "small_disk.h"

namespace amalgam {
namespace {

using test::expect_error;

class FullDiskUnderMpi : public test::SmallDisk {};

TEST_P(FullDiskUnderMpi, dataset) {
    expect_error([&] { test::write_too_much(folder / "large.h5"); }, ExitCode::storage, {"No space left on device"});
}

TEST_P(FullDiskUnderMpi, metadata_at_close) {
    nearly_fill();
    expect_error([&] { test::write_too_many(folder / "many.h5"); }, ExitCode::storage, {"No space left on device"});
}

INSTANTIATE_TEST_SUITE_P(, FullDiskUnderMpi, test::disk_kinds, test::disk_kind_name);

}  // namespace
}  // namespace amalgam
