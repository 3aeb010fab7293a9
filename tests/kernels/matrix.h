// SPDX-License-Identifier: Apache-2.0
// Operands of the kernel tests: strided matrices of either element type, random values, and comparisons that scale with
// the precision of the type.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <vector>

#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam::kernels::testing {

inline constexpr ElementType both_types[] = {ElementType::float32, ElementType::bfloat16};
inline constexpr double nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr double infinity = std::numeric_limits<double>::infinity();

inline std::uint16_t to_bfloat16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    if (std::isnan(value)) return static_cast<std::uint16_t>(bits >> 16 | 0x40);
    return static_cast<std::uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

inline float from_bfloat16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

inline std::vector<double> random_values(std::int64_t count, unsigned seed, double scale = 1) {
    std::mt19937_64 generator(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<double> values(count);
    for (double& value : values) value = normal(generator);
    return values;
}

// A matrix [rows, width] with a gap after each row that holds a value that nobody may change. The gap is so many
// elements, or, where the rows are whole vectors of eight, so many vectors (unless it is `odd`): those rows stay
// aligned, the others are not.
class Matrix {
  public:
    enum class Gap { even, odd };

    Matrix(ElementType type, std::int64_t rows, std::int64_t width, std::int64_t gap = 0, Gap kind = Gap::even)
        : type_(type),
          rows_(rows),
          width_(width),
          stride_(width + (width % 8 == 0 && kind == Gap::even ? 8 * gap : gap)),
          bytes_(rows * stride_ * (type == ElementType::bfloat16 ? 2 : 4)) {
        for (std::int64_t i = 0; i < rows * stride_; ++i) put(i, untouched);
    }
    Matrix(ElementType type, std::int64_t rows, std::int64_t width, const std::vector<double>& values,
           std::int64_t gap = 0, Gap kind = Gap::even)
        : Matrix(type, rows, width, gap, kind) {
        for (std::int64_t i = 0; i < rows * width; ++i) put(i / width * stride_ + i % width, values[i]);
    }

    // What the matrix holds after rounding to its type.
    std::vector<double> values() const {
        std::vector<double> values(rows_ * width_);
        for (std::int64_t i = 0; i < rows_ * width_; ++i) values[i] = get(i / width_ * stride_ + i % width_);
        return values;
    }

    bool gap_is_untouched() const {
        for (std::int64_t i = 0; i < rows_ * stride_; ++i) {
            if (i % stride_ >= width_ && get(i) != untouched) return false;
        }
        return true;
    }

    void* data() { return bytes_.data(); }
    const void* data() const { return bytes_.data(); }
    const float* floats() const { return reinterpret_cast<const float*>(bytes_.data()); }  // of a float32 matrix
    // A view that starts at a column.
    Rows from_column(std::int64_t column) {
        return {bytes_.data() + column * (type_ == ElementType::bfloat16 ? 2 : 4), stride_};
    }
    operator Rows() { return from_column(0); }
    operator ConstRows() const { return {bytes_.data(), stride_}; }
    bool operator==(const Matrix& other) const { return bytes_ == other.bytes_; }

  private:
    static constexpr float untouched = -7340032.0F;

    void put(std::int64_t i, double value) {
        const auto rounded = static_cast<float>(value);
        const std::uint16_t half = to_bfloat16(rounded);
        if (type_ == ElementType::bfloat16) {
            std::memcpy(bytes_.data() + 2 * i, &half, 2);
        } else {
            std::memcpy(bytes_.data() + 4 * i, &rounded, 4);
        }
    }

    float get(std::int64_t i) const {
        float value = 0;
        std::uint16_t half = 0;
        std::memcpy(type_ == ElementType::bfloat16 ? static_cast<void*>(&half) : &value,
                    bytes_.data() + i * (type_ == ElementType::bfloat16 ? 2 : 4),
                    type_ == ElementType::bfloat16 ? 2 : 4);
        return type_ == ElementType::bfloat16 ? from_bfloat16(half) : value;
    }

    ElementType type_;
    std::int64_t rows_, width_, stride_;
    std::vector<unsigned char> bytes_;
};

// Each value within one rounding to the type, plus float32 arithmetic errors of `float_error` times the RMS value, or
// times `scale` where that is larger: the size of the terms where they cancel.
template <class Values>
void expect_close(const Values& actual, const std::vector<double>& expected, ElementType type,
                  double float_error = 4e-6, double scale = 0) {
    ASSERT_EQ(actual.size(), expected.size());
    double squares = 0;
    for (double value : expected) squares += value * value;
    const double rms = std::max(scale, std::sqrt(squares / static_cast<double>(expected.size())));
    const double rounding = type == ElementType::bfloat16 ? 1.0 / 256 : 1e-6;
    for (std::size_t i = 0; i < expected.size(); ++i) {
        ASSERT_NEAR(actual[i], expected[i], rounding * std::abs(expected[i]) + float_error * rms + 1e-37)
            << "element " << i << " of " << expected.size();
    }
}

// The analytic gradient of `function` by `at` against central differences.
inline void expect_gradient(const std::function<double(const std::vector<double>&)>& function, std::vector<double> at,
                            const std::vector<double>& gradient) {
    ASSERT_EQ(at.size(), gradient.size());
    constexpr double step = 1e-5;
    for (std::size_t i = 0; i < at.size(); ++i) {
        const double value = at[i];
        at[i] = value + step;
        const double above = function(at);
        at[i] = value - step;
        const double below = function(at);
        at[i] = value;
        ASSERT_NEAR((above - below) / (2 * step), gradient[i], 1e-7 * (1 + std::abs(gradient[i]))) << "element " << i;
    }
}

inline double dot(const std::vector<double>& a, const std::vector<double>& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
}

}  // namespace amalgam::kernels::testing
