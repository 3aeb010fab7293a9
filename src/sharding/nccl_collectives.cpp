// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_collectives.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <exception>
#include <memory>
#include <optional>

#include "comm/watchdog.h"
#include "system/activity.h"
#include "system/error.h"

namespace amalgam {
namespace {

void check_nccl(ncclResult_t result, const char* call) {
    if (result != ncclSuccess)
        throw Error(text(call, " failed: ", ncclGetErrorString(result), " (", ncclGetLastError(nullptr), ")"),
                    ExitCode::communication);
}

/// Calls block until their work is queued (NCCL's non-blocking mode starts a thread for each, 0.3 ms on the H200
/// machine of analysis/results/two-gpus). A rank that is missing may leave this one inside NCCL; the watchdog, a thread
/// of its own, still says so and aborts the communicator before the process ends. It looks for asynchronous errors,
/// too.
class NcclCollectives : public TensorCollectives, private WatchedLink {
  public:
    NcclCollectives(const Communicator& group, at::Device device) : group_(group), device_(device) {
        if (group_.size() == 1) return;
        const c10::cuda::CUDAGuard guard(device_);
        ncclUniqueId id{};
        if (group_.is_root()) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
        group_.broadcast(std::span<char>(reinterpret_cast<char*>(&id), sizeof id));
        const Waiting waiting("ncclCommInitRank");
        check_nccl(ncclCommInitRank(&comm_, group_.size(), id, group_.rank()), "ncclCommInitRank");
        watch();
    }

    ~NcclCollectives() override {
        if (!comm_) return;
        unwatch();
        // While an exception is on its way other ranks may be missing: nothing may wait for them.
        if (std::uncaught_exceptions() > 0) {
            ncclCommAbort(comm_);
            return;
        }
        const Waiting waiting("ncclCommDestroy");
        ncclCommDestroy(comm_);
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
            check_nccl(
                ncclAllGather(own.data_ptr(), whole.data_ptr(), size_t(own.numel()), type_of(own), comm_, stream),
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
                                         comm_, stream),
                       "ncclReduceScatter");
        });
    }

  private:
    ncclResult_t state() const {
        ncclResult_t result = ncclSuccess;
        const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
        return asked == ncclSuccess ? result : asked;
    }

    std::string problem() override {
        const ncclResult_t result = state();
        if (result == ncclSuccess || result == ncclInProgress) return {};
        return text("NCCL reports: ", ncclGetErrorString(result), " (", ncclGetLastError(comm_), ")");
    }
    void abort() override { ncclCommAbort(comm_); }

    static ncclDataType_t type_of(const at::Tensor& t) {
        if (t.scalar_type() == at::kLong) return ncclInt64;
        return t.scalar_type() == at::kBFloat16 ? ncclBfloat16 : ncclFloat32;
    }

    void sum(at::Tensor& t, cudaStream_t stream) {
        const Waiting waiting("ncclAllReduce");
        check_nccl(ncclAllReduce(t.data_ptr(), t.data_ptr(), size_t(t.numel()), type_of(t), ncclSum, comm_, stream),
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
    ncclComm_t comm_ = nullptr;
    std::optional<c10::cuda::CUDAStream> side_;
};

}  // namespace

std::unique_ptr<TensorCollectives> make_nccl_collectives(const Communicator& group, at::Device device) {
    return std::make_unique<NcclCollectives>(group, device);
}

}  // namespace amalgam
