// SPDX-License-Identifier: Apache-2.0
// The GPU of a rank, for benchmarks of models: which it is, when its work is done, how much memory that took.
#pragma once

#include <ATen/core/Tensor.h>
#ifdef AMALGAM_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#endif

#include <string>

#include "comm/communicator.h"
#include "job/job_values.h"
#include "stages/compute.h"

namespace amalgam::benchmarks {

/// "cpu", "cuda" (of the node-local rank, which then computes on it by default) or "auto". Collective over `world`.
inline at::Device device_named(const std::string& name, const Communicator& world) {
    if (!asks_for_cuda("device", value_named<DeviceChoice>("device", name))) return at::kCPU;
    const at::Device device(at::kCUDA, c10::DeviceIndex(world.split_by_node().rank()));
#ifdef AMALGAM_CUDA
    c10::cuda::set_device(device.index());
#endif
    return device;
}

/// Bytes of device memory, now and at most since the last call; 0 on CPUs.
struct DeviceMemory {
    double now = 0, most = 0;
};

/// Waits for the device.
inline DeviceMemory finish_device_work([[maybe_unused]] at::Device device) {
#ifdef AMALGAM_CUDA
    if (device.is_cuda()) {
        c10::cuda::device_synchronize();
        namespace allocator = c10::cuda::CUDACachingAllocator;
        const auto stats = allocator::getDeviceStats(device.index());
        allocator::resetPeakStats(device.index());
        return {double(stats.allocated_bytes[0].current), double(stats.allocated_bytes[0].peak)};
    }
#endif
    return {};
}

}  // namespace amalgam::benchmarks
