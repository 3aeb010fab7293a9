// SPDX-License-Identifier: Apache-2.0
#include "sharding/tensor_collectives.h"

#include <ATen/ATen.h>

#include <limits>

#include "system/activity.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include "sharding/nccl_collectives.h"
#endif

namespace amalgam {
namespace {

class MpiTensorCollectives : public TensorCollectives {
  public:
    explicit MpiTensorCollectives(Communicator group) : group_(std::move(group)) {}

    void all_reduce(at::Tensor& t) override {
        if (group_.size() == 1) return;
        const MPI_Datatype type = t.scalar_type() == at::kLong ? MPI_INT64_T : MPI_FLOAT;
        const Waiting waiting("all-reduce of gradients");
        // MPI counts are int.
        constexpr int64_t most = std::numeric_limits<int>::max();
        char* data = static_cast<char*>(t.data_ptr());
        for (int64_t first = 0; first < t.numel(); first += most) {
            const int count = int(std::min(most, t.numel() - first));
            check_mpi(MPI_Allreduce(MPI_IN_PLACE, data + first * t.element_size(), count, type, MPI_SUM, group_.get()),
                      "MPI_Allreduce");
        }
    }

  private:
    Communicator group_;
};

}  // namespace

std::unique_ptr<TensorCollectives> make_tensor_collectives(const Communicator& group, at::Device device) {
    if (device.is_cpu()) return std::make_unique<MpiTensorCollectives>(group);
#ifdef AMALGAM_CUDA
    return make_nccl_collectives(group, device);
#else
    throw Error("this build has no CUDA (device tensors need NCCL); configure with -DAMALGAM_CUDA=ON",
                ExitCode::bad_input);
#endif
}

}  // namespace amalgam
