// SPDX-License-Identifier: Apache-2.0
// Kernels that start while those queued before them are still at work (programmatic dependent launch), so that they
// have fetched their weights when these end. Before it waits, such a kernel may only read what was written before the
// last kernel that was launched in the plain way: weights, what earlier steps have left, which rows a step has.
#pragma once

#include "kernels/cuda/launch.cuh"

namespace amalgam::kernels::cuda {

/// Until all kernels queued before have ended and what they wrote is visible. Every launch_early kernel calls it.
__device__ __forceinline__ void wait_for_earlier_kernels() {
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

/// The next kernel may start once every block of this one has called it or ended.
__device__ __forceinline__ void let_next_kernel_start() {
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}

/// Queues a kernel whose blocks may start before the kernel in front of it ends, in clusters of so many blocks.
template <class... Parameters, class... Arguments>
void launch_early(void (*kernel)(Parameters...), dim3 grid, int threads, int shared_bytes, int cluster,
                  cudaStream_t stream, const char* operation, const Arguments&... arguments) {
    cudaLaunchAttribute attributes[2];
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = 1;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = unsigned(cluster);
    attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
    cudaLaunchConfig_t config{};
    config.gridDim = grid;
    config.blockDim = dim3(unsigned(threads));
    config.dynamicSmemBytes = size_t(shared_bytes);
    config.stream = stream;
    config.attrs = attributes;
    config.numAttrs = cluster > 1 ? 2 : 1;
    check(cudaLaunchKernelEx(&config, kernel, Parameters(arguments)...), operation);
}

}  // namespace amalgam::kernels::cuda
