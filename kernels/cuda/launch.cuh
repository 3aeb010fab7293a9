// SPDX-License-Identifier: Apache-2.0
// Launches that report their errors, and what they ask of the device.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace amalgam::kernels::cuda {

/// Throws std::runtime_error "OPERATION[: STEP]: ..." if a call or the launch before it failed.
inline void check(cudaError_t error, const char* operation, const char* step = nullptr) {
    if (error == cudaSuccess) return;
    throw std::runtime_error(std::string(operation) + (step ? std::string(": ") + step : "") + ": " +
                             cudaGetErrorString(error) +
                             " (the launch failed); check the device and the library's GPU architectures");
}
inline void check_launch(const char* operation, const char* step = nullptr) {
    check(cudaGetLastError(), operation, step);
}

/// Lets `kernel` have `bytes` of dynamic shared memory, more than it may by default. Once a kernel is enough: callers
/// keep the true that comes back in a static.
template <class... Arguments>
bool allow_shared_memory(void (*kernel)(Arguments...), int bytes, const char* operation) {
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes), operation);
    return true;
}

/// Of the current device.
inline int multiprocessors() {
    int device = 0, count = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute");
    return count;
}

}  // namespace amalgam::kernels::cuda
