// SPDX-License-Identifier: Apache-2.0
// What the host code of the linear mixers shares: which calls have kernels, how their rows must lie, and the choice of
// the head dimension. A Shape has batch, heads, key_dim and value_dim; Options have element_type and scale.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <type_traits>

#include "kernels/cuda/launch.cuh"
#include "kernels/element_type.h"

namespace amalgam::kernels::cuda {

/// True for bf16 and heads of 64 or 128 for keys and values alike, few enough for the second dimension of a grid.
template <class Shape, class Options>
bool mixer_has_kernels(const Shape& shape, const Options& options) {
    return options.element_type == ElementType::bfloat16 && shape.key_dim == shape.value_dim &&
           (shape.key_dim == 64 || shape.key_dim == 128) && shape.batch * shape.heads < 65536;
}

/// The factor on the outputs: 1 / sqrt(key_dim) where the options leave it open.
template <class Shape, class Options>
float scale_of(const Shape& shape, const Options& options) {
    return options.scale == 0.0F ? 1.0F / std::sqrt(static_cast<float>(shape.key_dim)) : options.scale;
}

/// Bytes that the starts of all rows of these bf16 views are multiples of: 16, 4 or 2.
template <class View>
int alignment_of(std::initializer_list<View> views) {
    int alignment = 16;
    for (const View& view : views) {
        const auto start = reinterpret_cast<std::uintptr_t>(view.data) | std::uintptr_t(2 * view.stride);
        if (start % 16 != 0) alignment = std::min(alignment, start % 4 == 0 ? 4 : 2);
    }
    return alignment;
}

/// Calls body(dim) with the head dimension, 64 or 128, as a constant.
template <class Body>
void with_head_dim(std::int64_t key_dim, Body body) {
    if (key_dim == 64)
        body(std::integral_constant<int, 64>{});
    else
        body(std::integral_constant<int, 128>{});
}

}  // namespace amalgam::kernels::cuda
