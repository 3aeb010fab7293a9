// SPDX-License-Identifier: Apache-2.0
// main() of the tests that run under mpirun: every rank runs every test, rank 0 prints. The exit status of all ranks is
// the same: 1 if anything failed anywhere, or if no test was run.
#include <gtest/gtest.h>
#include <mpi.h>

#include <iostream>

#include "gather_failures.h"

int main(int argc, char** argv) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &provided);
    testing::InitGoogleTest(&argc, argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);

    // Listeners hear of the end of a test in reverse order: ours adds the failures of other ranks before rank 0's
    // printer reads the result.
    auto& listeners = testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new amalgam::test::GatherFailures(MPI_COMM_WORLD));

    int failed = RUN_ALL_TESTS() != 0 ? 1 : 0;
    if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
        if (rank == 0) std::cerr << "no test was run (a filter that matches nothing would otherwise pass)\n";
        failed = 1;
    }
    MPI_Allreduce(MPI_IN_PLACE, &failed, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return failed;
}
