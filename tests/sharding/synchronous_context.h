// SPDX-License-Identifier: Apache-2.0
// A ContextGroup whose every message waits for its receiver, for tests of the order of messages (context_group.h): in a
// wrong order the ranks wait for each other, and the test ends by its time limit.
#pragma once

#include <ATen/ATen.h>

#include "comm/communicator.h"
#include "mixers/context_group.h"

namespace amalgam::test {

class SynchronousContext : public ContextGroup {
  public:
    explicit SynchronousContext(const Communicator& group) : group_(Communicator::duplicate(group.get())) {}
    int64_t ranks() const override { return group_.size(); }
    int64_t rank() const override { return group_.rank(); }

    void send(const at::Tensor& t, int64_t to) override {
        const at::Tensor whole = t.contiguous();
        check_mpi(MPI_Ssend(whole.const_data_ptr(), int(whole.nbytes()), MPI_BYTE, int(to), 0, group_.get()),
                  "MPI_Ssend");
    }
    Arrival expect(at::IntArrayRef sizes, const at::TensorOptions& like, int64_t from) override {
        at::Tensor t = at::empty(sizes, like);
        check_mpi(MPI_Recv(t.data_ptr(), int(t.nbytes()), MPI_BYTE, int(from), 0, group_.get(), MPI_STATUS_IGNORE),
                  "MPI_Recv");
        return [t] { return t; };
    }

  private:
    Communicator group_;
};

}  // namespace amalgam::test
