// SPDX-License-Identifier: Apache-2.0
// Four rows of weights meet several rows of x in registers and stay in the first cache while they meet the next ones.
// The four after them are fetched meanwhile in the order in which they lie: so the processor foresees what follows.
#include <type_traits>

#include "kernels/elementwise/elements.h"
#include "kernels/few_rows_product/few_rows_product.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

constexpr int outputs = 4;  // rows of weights at a time
#if defined(__AVX512F__)
constexpr int most_rows = 4;  // of x; all sums stay in registers
#else
constexpr int most_rows = 2;
#endif

/// The sums of four vectors, in the first lanes.
inline Vector four_sums(Vector a, Vector b, Vector c, Vector d) {
#if defined(__AVX2__)
#if defined(__AVX512F__)
    const auto interleaved = [](Vector x, Vector y) { return _mm512_unpacklo_ps(x, y) + _mm512_unpackhi_ps(x, y); };
    const __m512d ab = _mm512_castps_pd(interleaved(a, b)), cd = _mm512_castps_pd(interleaved(c, d));
    const Vector quarters = _mm512_castpd_ps(_mm512_unpacklo_pd(ab, cd)) + _mm512_castpd_ps(_mm512_unpackhi_pd(ab, cd));
    const __m256 halves =
        _mm512_castps512_ps256(quarters) + _mm512_castps512_ps256(_mm512_shuffle_f32x4(quarters, quarters, 0b01001110));
    return _mm512_castps128_ps512(_mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1));
#else
    const auto interleaved = [](Vector x, Vector y) { return _mm256_unpacklo_ps(x, y) + _mm256_unpackhi_ps(x, y); };
    const __m256d ab = _mm256_castps_pd(interleaved(a, b)), cd = _mm256_castps_pd(interleaved(c, d));
    const Vector halves = _mm256_castpd_ps(_mm256_unpacklo_pd(ab, cd)) + _mm256_castpd_ps(_mm256_unpackhi_pd(ab, cd));
    return _mm256_castps128_ps256(_mm256_castps256_ps128(halves) + _mm256_extractf128_ps(halves, 1));
#endif
#else
    return Vector{sum(a), sum(b), sum(c), sum(d)};
#endif
}

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

template <class M, class Body>
inline __attribute__((always_inline)) void for_each_step(std::int64_t count, Body&& body) {
    std::int64_t i = 0;
    for (; i + M::width <= count; i += M::width) body(i, Whole{});
    if (i < count) body(i, Part{static_cast<int>(count - i)});
}

/// y[r * y_stride + o] for `rows` rows of x and the first `outs` of `outputs` rows of weights, which the next ones
/// follow `ahead` elements after the first.
template <class T, int rows, class X>
void multiply_block(const T* const (&weight)[outputs], std::int64_t ahead, const X* x, std::int64_t x_stride,
                    std::int64_t in, int outs, const T* bias, T* y, std::int64_t y_stride) {
    using M = Multiply<T>;
    Vector sums[rows][outputs];
    for (int r = 0; r < rows; ++r)
        for (int o = 0; o < outputs; ++o) sums[r][o] = zero();
    for_each_step<M>(in, [&](std::int64_t i, auto part) {
        decltype(M::load(weight[0], part)) w[outputs];
#pragma GCC unroll 4
        for (int o = 0; o < outputs; ++o) {
            w[o] = M::load(weight[o] + i, part);
            __builtin_prefetch(weight[0] + ahead + outputs * i + o * M::width);
        }
#pragma GCC unroll 4
        for (int r = 0; r < rows; ++r) {
            const auto value = M::load(x + r * x_stride + i, part);
#pragma GCC unroll 4
            for (int o = 0; o < outputs; ++o) sums[r][o] = M::accumulate(w[o], value, sums[r][o]);
        }
    });
    for (int r = 0; r < rows; ++r) {
        Vector all = four_sums(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
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
        const int outs = static_cast<int>(a.out - first < outputs ? a.out - first : outputs);
        const T* weight[outputs];
        for (int o = 0; o < outputs; ++o) weight[o] = row_of<T>(a.weight, first + (o < outs ? o : 0));
        for (std::int64_t row = 0; row < a.rows; row += most_rows)
            with_count<most_rows>(a.rows - row < most_rows ? a.rows - row : most_rows, [&](auto rows) {
                multiply_block<T, rows>(weight, outputs * a.weight.stride, x + row * x_stride, x_stride, a.in, outs,
                                        bias == nullptr ? nullptr : bias + first, row_of<T>(a.y, row, first),
                                        a.y.stride);
            });
    }
}

}  // namespace

void few_rows_product(const FewRowsProduct& a, int threads) {
    with_element_type(a.type, [&](auto* element) { run<std::remove_pointer_t<decltype(element)>>(a, threads); });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
