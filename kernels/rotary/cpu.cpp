// SPDX-License-Identifier: Apache-2.0
#include "kernels/elementwise/blocks.h"
#include "kernels/rotary/rotary.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

enum class Direction { forward, backward };

template <Direction direction, class T>
void rotate(const T* x, T* y, const float* cos, const float* sin, std::int64_t half) {
    for_each_vector(half, [&](std::int64_t j, auto part) {
        const Vector low = load(x + j, part);
        const Vector high = load(x + half + j, part);
        const Vector cos_low = load(cos + j, part);
        const Vector cos_high = load(cos + half + j, part);
        const Vector sin_low = load(sin + j, part);
        const Vector sin_high = load(sin + half + j, part);
        if constexpr (direction == Direction::forward) {
            store(y + j, low * cos_low - high * sin_low, part);
            store(y + half + j, high * cos_high + low * sin_high, part);
        } else {
            store(y + j, low * cos_low + high * sin_high, part);
            store(y + half + j, high * cos_high - low * sin_low, part);
        }
    });
}

template <Direction direction>
void rotary(const Rotary& a, int threads) {
    with_element_type(a.type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
#pragma omp parallel for num_threads(threads) schedule(static)
        for (std::int64_t token = 0; token < a.tokens; ++token) {
            const std::int64_t position = token % a.positions;
            const float* cos = a.cos + position * a.width;
            const float* sin = a.sin + position * a.width;
            for (std::int64_t head = 0; head < a.heads; ++head) {
                const std::int64_t offset = head * a.width;
                rotate<direction>(row_of<T>(a.x, token, offset), row_of<T>(a.y, token, offset), cos, sin, a.width / 2);
            }
        }
    });
}

}  // namespace

void rotary_forward(const Rotary& a, int threads) {
    rotary<Direction::forward>(a, threads);
}
void rotary_backward(const Rotary& a, int threads) {
    rotary<Direction::backward>(a, threads);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
