// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_collectives.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>
#include <optional>

#include "sharding/nccl_link.h"
#include "system/activity.h"

namespace amalgam {
namespace {

class NcclCollectives : public TensorCollectives {
  public:
    NcclCollectives(const Communicator& group, at::Device device) : group_(group), device_(device) {
        if (group_.size() == 1) return;
        ncclUniqueId id{};
        if (group_.is_root()) id = make_nccl_id();
        group_.broadcast(std::span<char>(reinterpret_cast<char*>(&id), sizeof id));
        link_.emplace(id, group_.size(), group_.rank(), device_);
    }

    void all_reduce(at::Tensor& t) override {
        if (group_.size() == 1) return;
        const c10::cuda::CUDAGuard guard(device_);
        sum(t, c10::cuda::getCurrentCUDAStream(device_.index()).stream());
    }

    Pending start_all_reduce(at::Tensor t) override {
        if (group_.size() == 1) return {};
        return start([&](cudaStream_t stream) { sum(t, stream); });
    }

    Pending all_gather_into(at::Tensor whole, at::Tensor own) override {
        if (group_.size() == 1) {
            if (whole.data_ptr() != own.data_ptr()) whole.copy_(own);
            return {};
        }
        return start([&](cudaStream_t stream) {
            const Waiting waiting("ncclAllGather");
            check_nccl(ncclAllGather(own.data_ptr(), whole.data_ptr(), size_t(own.numel()), type_of(own), link_->get(),
                                     stream),
                       "ncclAllGather");
        });
    }

    Pending reduce_scatter_into(at::Tensor own, at::Tensor whole) override {
        if (group_.size() == 1) {
            own.copy_(whole);
            return {};
        }
        return start([&](cudaStream_t stream) {
            const Waiting waiting("ncclReduceScatter");
            check_nccl(ncclReduceScatter(whole.data_ptr(), own.data_ptr(), size_t(own.numel()), type_of(own), ncclSum,
                                         link_->get(), stream),
                       "ncclReduceScatter");
        });
    }

  private:
    static ncclDataType_t type_of(const at::Tensor& t) {
        if (t.scalar_type() == at::kLong) return ncclInt64;
        return t.scalar_type() == at::kBFloat16 ? ncclBfloat16 : ncclFloat32;
    }

    void sum(at::Tensor& t, cudaStream_t stream) {
        const Waiting waiting("ncclAllReduce");
        check_nccl(
            ncclAllReduce(t.data_ptr(), t.data_ptr(), size_t(t.numel()), type_of(t), ncclSum, link_->get(), stream),
            "ncclAllReduce");
    }

    /// On a stream of its own: after what is queued on the current stream so far, and beside what comes there until the
    /// wait, which puts the current stream behind it; the program does not stand still.
    template <class Queue>
    Pending start(const Queue& queue) {
        const c10::cuda::CUDAGuard guard(device_);
        if (!side_) side_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device_.index());
        at::cuda::CUDAEvent ready;
        ready.record(c10::cuda::getCurrentCUDAStream(device_.index()));
        ready.block(*side_);
        queue(side_->stream());
        auto done = std::make_shared<at::cuda::CUDAEvent>();
        done->record(*side_);
        return Pending([done, index = device_.index()] { done->block(c10::cuda::getCurrentCUDAStream(index)); });
    }

    Communicator group_;
    at::Device device_;
    std::optional<NcclLink> link_;
    std::optional<c10::cuda::CUDAStream> side_;
};

}  // namespace

std::unique_ptr<TensorCollectives> make_nccl_collectives(const Communicator& group, at::Device device) {
    return std::make_unique<NcclCollectives>(group, device);
}

}  // namespace amalgam
