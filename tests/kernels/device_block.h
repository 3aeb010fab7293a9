// SPDX-License-Identifier: Apache-2.0
#pragma once

// Blocks of device memory that tests fill and read.

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

namespace amalgam::kernels {

inline void check_cuda(cudaError_t error, const char* what) {
    if (error != cudaSuccess) throw std::runtime_error(std::string(what) + ": " + cudaGetErrorString(error));
}

/// A block of device memory, poisoned with NaN patterns or filled from the host.
class DeviceBlock {
  public:
    explicit DeviceBlock(size_t bytes) : bytes_(bytes) {
        check_cuda(cudaMalloc(&data_, bytes == 0 ? 1 : bytes), "cudaMalloc");
        check_cuda(cudaMemset(data_, 0xFF, bytes), "cudaMemset");
    }
    template <class T>
    explicit DeviceBlock(const std::vector<T>& host) : DeviceBlock(host.size() * sizeof(T)) {
        check_cuda(cudaMemcpy(data_, host.data(), bytes_, cudaMemcpyHostToDevice), "copy to the device");
    }
    DeviceBlock(const DeviceBlock&) = delete;
    DeviceBlock& operator=(const DeviceBlock&) = delete;
    ~DeviceBlock() { cudaFree(data_); }
    void* data() const { return data_; }
    float* floats() const { return static_cast<float*>(data_); }
    std::byte* at(int64_t byte) const { return static_cast<std::byte*>(data_) + byte; }
    template <class T>
    std::vector<T> host() const {
        std::vector<T> result(bytes_ / sizeof(T));
        check_cuda(cudaMemcpy(result.data(), data_, bytes_, cudaMemcpyDeviceToHost), "copy from the device");
        return result;
    }
    /// Of fp32 memory, as NamedValues hold them.
    std::vector<double> numbers() const {
        const std::vector<float> x = host<float>();
        return {x.begin(), x.end()};
    }

  private:
    void* data_ = nullptr;
    size_t bytes_;
};

/// States of a batch in slots: row i in slot batch - i, and in slot 0 numbers that nobody may change.
struct SlottedStates {
    SlottedStates(const std::vector<float>& by_row, int64_t batch) : size(int64_t(by_row.size()) / batch) {
        states.assign(size_t((batch + 1) * size), untouched);
        for (int64_t i = 0; i < batch; ++i) {
            slot.push_back(static_cast<int32_t>(batch - i));
            std::copy_n(by_row.begin() + i * size, size, states.begin() + (batch - i) * size);
        }
    }
    /// Throws if the slot of nobody has changed.
    std::vector<float> by_row(const std::vector<float>& now) const {
        for (int64_t i = 0; i < size; ++i)
            if (now[size_t(i)] != untouched) throw std::runtime_error("a state that no row names has changed");
        std::vector<float> rows;
        for (const int32_t s : slot) rows.insert(rows.end(), now.begin() + s * size, now.begin() + (s + 1) * size);
        return rows;
    }

    static constexpr float untouched = 7.0F;
    int64_t size;
    std::vector<float> states;
    std::vector<int32_t> slot;
};

inline std::vector<float> from_bf16(const std::vector<uint16_t>& x) {
    std::vector<float> result(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
        const uint32_t bits = uint32_t(x[i]) << 16;
        std::memcpy(&result[i], &bits, 4);
    }
    return result;
}

}  // namespace amalgam::kernels
