// SPDX-License-Identifier: Apache-2.0
#pragma once

// Buffers of activations in the kernels' element types, and results to be compared.

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <string>
#include <vector>

#include "kernels/element_type.h"

namespace amalgam::kernels {

inline float round_to(ElementType type, float x) {
    if (type == ElementType::float32) return x;
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    bits = (bits + 0x7FFFU + ((bits >> 16) & 1U)) & 0xFFFF0000U;
    std::memcpy(&x, &bits, 4);
    return x;
}

/// A buffer of activations in either element type, filled and read as fp32.
class Activations {
  public:
    Activations(ElementType type, int64_t size) : type_(type), bytes_(size * width(), 0xFF) {}
    int64_t width() const { return type_ == ElementType::float32 ? 4 : 2; }
    std::byte* at(int64_t i) { return reinterpret_cast<std::byte*>(bytes_.data()) + i * width(); }
    float get(int64_t i) const {
        uint32_t bits = 0;
        std::memcpy(reinterpret_cast<char*>(&bits) + 4 - width(), bytes_.data() + i * width(), width());
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }
    void set(int64_t i, float x) {
        x = round_to(type_, x);
        std::memcpy(bytes_.data() + i * width(), reinterpret_cast<const char*>(&x) + 4 - width(), width());
    }
    const std::vector<unsigned char>& bytes() const { return bytes_; }

  private:
    ElementType type_;
    std::vector<unsigned char> bytes_;
};

/// Results by name; every vector is flattened over sequences, heads and the sequence's own layout, in that order.
using NamedValues = std::map<std::string, std::vector<double>>;

inline double root_mean_square(const std::vector<double>& x) {
    double sum = 0;
    for (double value : x) sum += value * value;
    return std::sqrt(sum / static_cast<double>(x.size()));
}

/// RMS(x - reference) / RMS(reference); not a number when x holds one.
inline double relative_error(const std::vector<double>& x, const std::vector<double>& reference) {
    std::vector<double> difference(x.size());
    for (size_t i = 0; i < x.size(); ++i) difference[i] = x[i] - reference[i];
    return root_mean_square(difference) / (root_mean_square(reference) + 1e-30);
}

}  // namespace amalgam::kernels
