// SPDX-License-Identifier: Apache-2.0
#include "sharding/nccl_link.h"

#include <c10/cuda/CUDAGuard.h>

#include <exception>

#include "system/activity.h"
#include "system/error.h"

namespace amalgam {

void check_nccl(ncclResult_t result, const char* call) {
    if (result != ncclSuccess)
        throw Error(text(call, " failed: ", ncclGetErrorString(result), " (", ncclGetLastError(nullptr), ")"),
                    ExitCode::communication);
}

ncclUniqueId make_nccl_id() {
    ncclUniqueId id{};
    check_nccl(ncclGetUniqueId(&id), "ncclGetUniqueId");
    return id;
}

NcclLink::NcclLink(const ncclUniqueId& id, int ranks, int rank, at::Device device, int most_blocks) {
    const c10::cuda::CUDAGuard guard(device);
    const Waiting waiting("ncclCommInitRank");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    if (most_blocks > 0) config.maxCTAs = most_blocks;
    check_nccl(ncclCommInitRankConfig(&comm_, ranks, id, rank, &config), "ncclCommInitRank");
    watch();
}

NcclLink::~NcclLink() {
    unwatch();
    // While an exception is on its way other ranks may be missing: nothing may wait for them.
    if (std::uncaught_exceptions() > 0) {
        ncclCommAbort(comm_);
        return;
    }
    const Waiting waiting("ncclCommDestroy");
    ncclCommDestroy(comm_);
}

std::string NcclLink::problem() {
    ncclResult_t result = ncclSuccess;
    const ncclResult_t asked = ncclCommGetAsyncError(comm_, &result);
    if (asked != ncclSuccess) result = asked;
    if (result == ncclSuccess || result == ncclInProgress) return {};
    return text("NCCL reports: ", ncclGetErrorString(result), " (", ncclGetLastError(comm_), ")");
}

void NcclLink::abort() {
    ncclCommAbort(comm_);
}

}  // namespace amalgam
