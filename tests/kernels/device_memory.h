// SPDX-License-Identifier: Apache-2.0
// Host operands of a kernel on the device and back, for tests that call the device's kernels through the host's
// functions.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels::testing {

inline void check(cudaError_t error, const char* call) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(error));
}

/// Pointers of a call's arguments, replaced by device memory with the same contents. Operands that overlap on the host
/// (in place, halves of one row) overlap on the device too, and addresses are as aligned as they were.
class DeviceOperands {
  public:
    DeviceOperands() = default;
    DeviceOperands(const DeviceOperands&) = delete;
    DeviceOperands& operator=(const DeviceOperands&) = delete;
    ~DeviceOperands() {
        for (const Range& range : ranges_) cudaFree(range.allocation);
    }

    /// `pointer` and `bytes` behind it; null pointers are left alone.
    template <class T>
    void add(T*& pointer, std::int64_t bytes) {
        if (pointer == nullptr) return;
        auto* begin = reinterpret_cast<unsigned char*>(const_cast<std::remove_const_t<T>*>(pointer));
        fields_.push_back(const_cast<void**>(reinterpret_cast<const void* const*>(&pointer)));
        ranges_.push_back({begin, begin + bytes, nullptr});
    }

    template <class AnyRows>
    void add_rows(AnyRows& rows, std::int64_t count, std::int64_t width, ElementType type) {
        const std::int64_t size = type == ElementType::bfloat16 ? 2 : 4;
        add(rows.data, count == 0 ? 0 : ((count - 1) * rows.stride + width) * size);
    }

    void to_device() {
        std::sort(ranges_.begin(), ranges_.end(), [](const Range& a, const Range& b) { return a.begin < b.begin; });
        std::vector<Range> merged;
        for (const Range& range : ranges_) {
            if (!merged.empty() && range.begin < merged.back().end) {
                merged.back().end = std::max(merged.back().end, range.end);
            } else {
                merged.push_back(range);
            }
        }
        ranges_ = merged;
        for (Range& range : ranges_) {
            check(cudaMalloc(&range.allocation, range.end - range.begin + alignment), "cudaMalloc");
            check(cudaMemcpy(range.device(), range.begin, range.end - range.begin, cudaMemcpyHostToDevice),
                  "cudaMemcpy");
        }
        for (void** field : fields_) *field = on_device(static_cast<unsigned char*>(*field));
    }

    /// Waits for the device.
    void to_host() {
        check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        for (const Range& range : ranges_)
            check(cudaMemcpy(range.begin, range.device(), range.end - range.begin, cudaMemcpyDeviceToHost),
                  "cudaMemcpy");
    }

  private:
    static constexpr std::uintptr_t alignment = 256;

    struct Range {
        unsigned char *begin, *end;
        unsigned char* allocation;

        unsigned char* device() const { return allocation + reinterpret_cast<std::uintptr_t>(begin) % alignment; }
    };

    void* on_device(unsigned char* host) const {
        for (const Range& range : ranges_)
            if (host >= range.begin && host < range.end) return range.device() + (host - range.begin);
        throw std::logic_error("an operand of a device kernel that was not added");
    }

    std::vector<void**> fields_;
    std::vector<Range> ranges_;
};

/// Uninitialised device memory: full of NaN.
class DeviceWorkspace {
  public:
    explicit DeviceWorkspace(std::int64_t bytes) {
        if (bytes == 0) return;
        check(cudaMalloc(&memory_, bytes), "cudaMalloc");
        check(cudaMemset(memory_, 0xff, bytes), "cudaMemset");
    }
    DeviceWorkspace(const DeviceWorkspace&) = delete;
    DeviceWorkspace& operator=(const DeviceWorkspace&) = delete;
    ~DeviceWorkspace() { cudaFree(memory_); }
    void* get() const { return memory_; }

  private:
    void* memory_ = nullptr;
};

}  // namespace amalgam::kernels::testing
