// SPDX-License-Identifier: Apache-2.0
// TensorCollectives over MPI. What is not waited for at once runs on a thread of its own, with a communicator of its
// own, since the program may talk MPI meanwhile: that takes MPI_THREAD_MULTIPLE. Where MPI offers less, those calls run
// at once, and nothing overlaps.
#pragma once

#include "sharding/tensor_collectives.h"

namespace amalgam {

std::unique_ptr<TensorCollectives> make_mpi_collectives(const Communicator& group);

}  // namespace amalgam
