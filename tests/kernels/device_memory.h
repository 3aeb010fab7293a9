// SPDX-License-Identifier: Apache-2.0
// Host operands of a kernel on the device and back, for tests that call the device's kernels through the host's
// functions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <vector>

#include "device_block.h"
#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels::testing {

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
            check_cuda(cudaMalloc(&range.allocation, range.end - range.begin + alignment), "cudaMalloc");
            check_cuda(cudaMemcpy(range.device(), range.begin, range.end - range.begin, cudaMemcpyHostToDevice),
                       "cudaMemcpy");
        }
        for (void** field : fields_) *field = on_device(static_cast<unsigned char*>(*field));
    }

    /// Waits for the device.
    void to_host() {
        check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
        for (const Range& range : ranges_)
            check_cuda(cudaMemcpy(range.begin, range.device(), range.end - range.begin, cudaMemcpyDeviceToHost),
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

}  // namespace amalgam::kernels::testing
