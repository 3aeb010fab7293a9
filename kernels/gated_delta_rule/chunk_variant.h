// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of functions of one instruction set. Each chunk_<isa>.cpp defines AMALGAM_ISA, includes this file, and is
// compiled with that instruction set's flags.

#include "kernels/gated_delta_rule/chunk_backward.h"
#include "kernels/gated_delta_rule/chunk_decode.h"

namespace amalgam::kernels::AMALGAM_ISA {

inline size_t scratch_bytes(const GatedDeltaRuleShape& shape) {
    const AnyDims dims{static_cast<int>(shape.key_dim), static_cast<int>(shape.value_dim), padded(shape.key_dim),
                       padded(shape.value_dim)};
    Scratch forward(nullptr);
    Scratch backward(nullptr);
    ForwardTiles{dims, forward};
    BackwardTiles{dims, backward};
    return forward.used() > backward.used() ? forward.used() : backward.used();
}

/// Calls visit with a value of the C++ type that holds the activations.
template <class Visit>
inline void with_element(ElementType type, Visit visit) {
    if (type == ElementType::bfloat16) {
        visit(uint16_t{});
    } else if constexpr (unit_depth == 1) {
        visit(float{});
    }
}

inline void forward(const ForwardCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { forward_head<decltype(element)>(dims, call, index, scratch); });
    });
}

inline void backward(const BackwardCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { backward_head<decltype(element)>(dims, call, index, scratch); });
    });
}

inline void decode(const DecodeCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { decode_head<decltype(element)>(dims, call, index, scratch); });
    });
}

inline constexpr ChunkKernels chunk_kernels{sizeof(Stored), &scratch_bytes, &forward, &backward, &decode};

}  // namespace amalgam::kernels::AMALGAM_ISA
