// SPDX-License-Identifier: Apache-2.0
// What grows with the number of ranks: the root receives a number of each.
#include <mpi.h>

#include <vector>

int main(int argc, char** argv) {
    MPI_Init(&argc, &argv);
    int ranks = 0;
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    std::vector<int> all(static_cast<size_t>(ranks));
    const int one = 1;
    MPI_Gather(&one, 1, MPI_INT, all.data(), 1, MPI_INT, 0, MPI_COMM_WORLD);
    MPI_Finalize();
}
