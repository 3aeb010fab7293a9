// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_collectives.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <cstring>

#include "system/error.h"

namespace amalgam {
namespace {

void check_nccl(ncclResult_t result, const char* call) {
    if (result != ncclSuccess && result != ncclInProgress)
        throw Error(text(call, " failed: ", ncclGetErrorString(result), " (", ncclGetLastError(nullptr), ")"),
                    ExitCode::communication);
}

class NcclCollectives : public TensorCollectives {
  public:
    NcclCollectives(const Communicator& group, at::Device device) : group_(group), device_(device) {
        if (group_.size() == 1) return;
        const c10::cuda::CUDAGuard guard(device_);
        ncclUniqueId id{};
        if (group_.is_root()) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
        group_.broadcast(std::span<char>(reinterpret_cast<char*>(&id), sizeof id));
        check_nccl(ncclCommInitRank(&comm_, group_.size(), id, group_.rank()), "ncclCommInitRank");
    }

    ~NcclCollectives() override {
        if (comm_) ncclCommDestroy(comm_);
    }

    void all_reduce(at::Tensor& t) override {
        if (group_.size() == 1) return;
        const c10::cuda::CUDAGuard guard(device_);
        const auto type = t.scalar_type() == at::kLong ? ncclInt64 : ncclFloat32;
        const auto stream = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
        check_nccl(ncclAllReduce(t.data_ptr(), t.data_ptr(), size_t(t.numel()), type, ncclSum, comm_, stream),
                   "ncclAllReduce");
    }

  private:
    Communicator group_;
    at::Device device_;
    ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<TensorCollectives> make_nccl_collectives(const Communicator& group, at::Device device) {
    return std::make_unique<NcclCollectives>(group, device);
}

}  // namespace amalgam
