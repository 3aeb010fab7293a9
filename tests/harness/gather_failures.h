// SPDX-License-Identifier: Apache-2.0
// GoogleTest listener for tests under mpirun: after each test the failures of all ranks become failures of rank 0,
// which prints them as "[rank 2 of 4]". All ranks must run the same tests.
#pragma once

#include <gtest/gtest.h>
#include <mpi.h>

#include <vector>

#include "watchdog.h"

namespace amalgam::test {

class GatherFailures : public testing::EmptyTestEventListener {
  public:
    /// Takes a duplicate of `parent`, so that a test's own messages cannot be mistaken for the listener's.
    explicit GatherFailures(MPI_Comm parent);

    void OnTestStart(const testing::TestInfo& test) override;
    void OnTestPartResult(const testing::TestPartResult& result) override;
    void OnTestEnd(const testing::TestInfo& test) override;
    void OnTestProgramEnd(const testing::UnitTest&) override;

  private:
    void gather();

    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0, ranks_ = 1;
    bool raising_ = false;  // rank 0 is repeating the others' failures
    std::vector<testing::TestPartResult> failures_;
    Watchdog watchdog_;
};

}  // namespace amalgam::test
