// SPDX-License-Identifier: Apache-2.0
// A few rows of weights meet several rows of x in registers. A group of weight rows stays in the first cache while it
// meets the next rows of x.
#include <type_traits>

#include "kernels/elementwise/elements.h"
#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr int outputs = 3;  // rows of weights at a time
#if defined(__AVX512F__)
constexpr int most_rows = 8;  // of x; all sums stay in registers
#else
constexpr int most_rows = 4;
#endif

/// Elements are multiplied as floats.
struct Widened {
    using X = float;
    static constexpr std::int64_t width = lanes;
    template <class Element, class P>
    static Vector load(const Element* from, P part) {
        return AMALGAM_ISA::load(from, part);
    }
    static Vector accumulate(Vector weight, Vector x, Vector sum) { return fma(weight, x, sum); }
};

#if defined(__AVX512BF16__)
/// The processor multiplies pairs of bfloat16 and adds both products to a float.
struct Pairs {
    using X = Bfloat16;
    static constexpr std::int64_t width = 2 * lanes;
    static __m512bh load(const Bfloat16* from, Whole) { return (__m512bh)_mm512_loadu_si512(from); }
    static __m512bh load(const Bfloat16* from, Part part) {
        return (__m512bh)_mm512_maskz_loadu_epi16((__mmask32)((1ULL << part.count) - 1), from);
    }
    static Vector accumulate(__m512bh weight, __m512bh x, Vector sum) { return _mm512_dpbf16_ps(sum, weight, x); }
};
template <class T>
using Multiply = std::conditional_t<std::is_same_v<T, Bfloat16>, Pairs, Widened>;
#else
template <class T>
using Multiply = Widened;
#endif

/// y[r * y_stride + o] for `rows` rows of x and `outs` of weights.
template <class T, int outs, int rows, class X>
void multiply_block(const T* weight, std::int64_t weight_stride, const X* x, std::int64_t x_stride, std::int64_t in,
                    const T* bias, T* y, std::int64_t y_stride) {
    using M = Multiply<T>;
    Vector sums[outs][rows];
    for (int o = 0; o < outs; ++o)
        for (int r = 0; r < rows; ++r) sums[o][r] = zero();
    const auto step = [&](std::int64_t i, auto part) __attribute__((always_inline)) {
        decltype(M::load(weight, part)) w[outs];
#pragma GCC unroll 3
        for (int o = 0; o < outs; ++o) w[o] = M::load(weight + o * weight_stride + i, part);
#pragma GCC unroll 8
        for (int r = 0; r < rows; ++r) {
            const auto value = M::load(x + r * x_stride + i, part);
#pragma GCC unroll 3
            for (int o = 0; o < outs; ++o) sums[o][r] = M::accumulate(w[o], value, sums[o][r]);
        }
    };
    std::int64_t i = 0;
    for (; i + M::width <= in; i += M::width) step(i, Whole{});
    if (i < in) step(i, Part{static_cast<int>(in - i)});
    for (int r = 0; r < rows; ++r) {
        float result[lanes] = {};
        for (int o = 0; o < outs; ++o) result[o] = sum(sums[o][r]);
        Vector all = load(result, Whole{});
        if (bias != nullptr) all = all + load(bias, Part{outs});
        store(y + r * y_stride, all, Part{outs});
    }
}

/// Calls body(constant n) for n = count, which is from 1 to `most`.
template <int most, class Body>
void with_count(std::int64_t count, Body&& body) {
    if constexpr (most > 1)
        if (count < most) return with_count<most - 1>(count, body);
    body(std::integral_constant<int, most>{});
}

template <class T>
void run(const FewRowsProduct& a, int threads) {
    using X = typename Multiply<T>::X;
    const X* x = nullptr;
    std::int64_t x_stride = a.x.stride;
    const Scratch<X> wide(std::is_same_v<T, X> ? 1 : a.rows * a.in);
    if constexpr (std::is_same_v<T, X>) {
        x = row_of<T>(a.x, 0);
    } else {
        for (std::int64_t r = 0; r < a.rows; ++r)
            for_each_vector(a.in, [&](std::int64_t i, auto part) {
                store(wide.get() + r * a.in + i, load(row_of<T>(a.x, r, i), part), part);
            });
        x = wide.get();
        x_stride = a.in;
    }
    const T* bias = static_cast<const T*>(a.bias);
    const std::int64_t groups = (a.out + outputs - 1) / outputs;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (std::int64_t group = 0; group < groups; ++group) {
        const std::int64_t first = group * outputs;
        with_count<outputs>(a.out - first < outputs ? a.out - first : outputs, [&](auto outs) {
            for (std::int64_t row = 0; row < a.rows; row += most_rows)
                with_count<most_rows>(a.rows - row < most_rows ? a.rows - row : most_rows, [&](auto rows) {
                    multiply_block<T, outs, rows>(row_of<T>(a.weight, first), a.weight.stride, x + row * x_stride,
                                                  x_stride, a.in, bias == nullptr ? nullptr : bias + first,
                                                  row_of<T>(a.y, row, first), a.y.stride);
                });
        });
    }
}

}  // namespace

void few_rows_product(const FewRowsProduct& a, int threads) {
    with_element_type(a.type, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
