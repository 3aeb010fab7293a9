// SPDX-License-Identifier: Apache-2.0
// Counts the bytes of all CPU tensors: those alive, and the most there were since a mark.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>

namespace amalgam::test {

class CountingAllocator : public c10::Allocator {
  public:
    /// Takes the place of LibTorch's CPU allocator until the process ends.
    static CountingAllocator& install() {
        static CountingAllocator the_one;
        c10::SetCPUAllocator(&the_one, /*priority=*/100);
        return the_one;
    }

    int64_t live() const { return live_; }
    int64_t peak() const { return peak_; }
    void mark() { peak_ = live_.load(); }

    c10::DataPtr allocate(size_t bytes) override {
        char* memory = static_cast<char*>(std::aligned_alloc(alignment, rounded(bytes) + alignment));
        *reinterpret_cast<int64_t*>(memory) = int64_t(bytes);  // for the release; LibTorch gets what follows
        peak_ = std::max(peak_.load(), live_ += int64_t(bytes));
        void* data = memory + alignment;
        return {data, data, &CountingAllocator::release, c10::Device(c10::kCPU)};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &CountingAllocator::release; }
    void copy_data(void* destination, const void* source, size_t bytes) const override {
        default_copy_data(destination, source, bytes);
    }

  private:
    static constexpr size_t alignment = 64;
    static size_t rounded(size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }
    static void release(void* data) {
        char* memory = static_cast<char*>(data) - alignment;
        live_ -= *reinterpret_cast<int64_t*>(memory);
        std::free(memory);
    }

    inline static std::atomic<int64_t> live_ = 0, peak_ = 0;
};

}  // namespace amalgam::test
