// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_collectives.h"

#include <ATen/ATen.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <nccl.h>

#include <exception>
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
        const auto type = t.scalar_type() == at::kLong ? ncclInt64 : ncclFloat32;
        const auto stream = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
        settle(ncclAllReduce(t.data_ptr(), t.data_ptr(), size_t(t.numel()), type, ncclSum, comm_, stream),
               "ncclAllReduce");
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

    Communicator group_;
    at::Device device_;
    ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<TensorCollectives> make_nccl_collectives(const Communicator& group, at::Device device) {
    return std::make_unique<NcclCollectives>(group, device);
}

}  // namespace amalgam
