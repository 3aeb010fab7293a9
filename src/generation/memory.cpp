// SPDX-License-Identifier: Apache-2.0
#include "generation/memory.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "system/error.h"
#ifdef AMALGAM_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime.h>
#endif

namespace amalgam {
namespace {

/// MemAvailable of /proc/meminfo, bytes; where there is none, nothing is known and nothing limited.
int64_t available_host_memory() {
    std::ifstream file("/proc/meminfo");
    for (std::string key, line; file >> key && std::getline(file, line);)
        if (key == "MemAvailable:") return std::stoll(line) * 1024;
    return std::numeric_limits<int64_t>::max();
}

}  // namespace

int64_t memory_for_caches(at::Device device) {
#ifdef AMALGAM_CUDA
    if (device.is_cuda()) {
        size_t free = 0, total = 0;
        if (cudaMemGetInfo(&free, &total) != cudaSuccess) return 0;
        const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(device.index());
        const int64_t kept = stats.reserved_bytes[0].current - stats.allocated_bytes[0].current;
        return (int64_t(free) + kept) / 4 * 3;
    }
#endif
    (void)device;
    return available_host_memory() / 2;
}

int64_t slots_that_fit(const CausalLM& model, int64_t capacity, int64_t wanted, int64_t memory) {
    const int64_t slot = model.cache_bytes(capacity), fitting = memory / slot;
    if (fitting < 1)
        throw Error(
            text("generation: a sequence of ", capacity, " tokens takes ", slot >> 20,
                 " MB of cache (there is memory for ", memory >> 20, " MB); use shorter requests, or more memory"),
            ExitCode::failure);
    return std::min(wanted, fitting);
}

}  // namespace amalgam
