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
#include <thread>

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

/// Non-blocking, so that a rank that is missing leaves this one in settle() and not inside NCCL; the watchdog looks for
/// asynchronous errors and aborts the communicator before the process ends.
class NcclCollectives : public TensorCollectives, private WatchedLink {
  public:
    NcclCollectives(const Communicator& group, at::Device device) : group_(group), device_(device) {
        if (group_.size() == 1) return;
        const c10::cuda::CUDAGuard guard(device_);
        ncclUniqueId id{};
        if (group_.is_root()) check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
        group_.broadcast(std::span<char>(reinterpret_cast<char*>(&id), sizeof id));
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 0;
        settle(ncclCommInitRankConfig(&comm_, group_.size(), id, group_.rank(), &config), "ncclCommInitRankConfig");
        watch();
    }

    ~NcclCollectives() override {
        if (!comm_) return;
        unwatch();
        // While an exception is on its way other ranks may be missing: nothing may wait for them.
        if (std::uncaught_exceptions() > 0 || !finalize())
            ncclCommAbort(comm_);
        else
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
            settle(ncclAllGather(own.data_ptr(), whole.data_ptr(), size_t(own.numel()), type_of(own), comm_, stream),
                   "ncclAllGather");
        });
    }

    Pending reduce_scatter_into(at::Tensor own, at::Tensor whole) override {
        if (group_.size() == 1) {
            own.copy_(whole);
            return {};
        }
        return start([&](cudaStream_t stream) {
            settle(ncclReduceScatter(whole.data_ptr(), own.data_ptr(), size_t(own.numel()), type_of(own), ncclSum,
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

    bool finalize() const {
        const Waiting waiting("ncclCommFinalize");
        ncclResult_t result = ncclCommFinalize(comm_);
        for (; result == ncclInProgress; result = state()) std::this_thread::yield();
        return result == ncclSuccess;
    }

    /// Waits until a call that may still be in progress is accepted; its work goes on in the stream.
    void settle(ncclResult_t result, const char* call) const {
        const Waiting waiting(call);
        while (result == ncclInProgress) {
            std::this_thread::yield();
            result = state();
        }
        check_nccl(result, call);
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
        settle(ncclAllReduce(t.data_ptr(), t.data_ptr(), size_t(t.numel()), type_of(t), ncclSum, comm_, stream),
               "ncclAllReduce");
    }

    /// On a stream of its own: after what is queued on the current stream so far, and beside what comes there until the
    /// wait, which puts the current stream behind it; the program does not stand still.
    template <class Call>
    Pending start(const Call& call) {
        const c10::cuda::CUDAGuard guard(device_);
        if (!side_) side_ = c10::cuda::getStreamFromPool(/*isHighPriority=*/true, device_.index());
        at::cuda::CUDAEvent ready;
        ready.record(c10::cuda::getCurrentCUDAStream(device_.index()));
        ready.block(*side_);
        call(side_->stream());
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
