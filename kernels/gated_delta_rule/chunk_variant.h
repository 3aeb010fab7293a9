// SPDX-License-Identifier: Apache-2.0
#pragma once

// The table of kernels of one instruction set, from the templates of a rule's passes: `Passes` has its Options, the
// tiles of both passes, and forward, backward and decode for a type of elements, called with (dims, call, index,
// scratch).

#include "kernels/gated_delta_rule/chunk.h"

namespace amalgam::kernels::AMALGAM_ISA {

template <class Passes>
struct ChunkVariant {
    using Options = typename Passes::Options;

    static size_t scratch_bytes(const GatedDeltaRuleShape& shape) {
        const AnyDims dims{static_cast<int>(shape.key_dim), static_cast<int>(shape.value_dim), padded(shape.key_dim),
                           padded(shape.value_dim)};
        Scratch forward(nullptr);
        Scratch backward(nullptr);
        typename Passes::ForwardTiles{dims, forward};
        typename Passes::BackwardTiles{dims, backward};
        return forward.used() > backward.used() ? forward.used() : backward.used();
    }

    /// Calls visit with a value of the C++ type that holds the activations.
    template <class Visit>
    static void with_element(ElementType type, Visit visit) {
        if (type == ElementType::bfloat16) {
            visit(uint16_t{});
        } else if constexpr (unit_depth == 1) {
            visit(float{});
        }
    }

    static void forward(const ForwardCallOf<Options>& call, int64_t index, std::byte* scratch) {
        with_element(call.options.element_type, [&](auto element) {
            with_dims(call.shape,
                      [&](auto dims) { Passes::template forward<decltype(element)>(dims, call, index, scratch); });
        });
    }

    static void backward(const BackwardCallOf<Options>& call, int64_t index, std::byte* scratch) {
        with_element(call.options.element_type, [&](auto element) {
            with_dims(call.shape,
                      [&](auto dims) { Passes::template backward<decltype(element)>(dims, call, index, scratch); });
        });
    }

    static void decode(const DecodeCallOf<Options>& call, int64_t index, std::byte* scratch) {
        with_element(call.options.element_type, [&](auto element) {
            with_dims(call.shape,
                      [&](auto dims) { Passes::template decode<decltype(element)>(dims, call, index, scratch); });
        });
    }
};

template <class Passes>
inline constexpr ChunkKernelsOf<typename Passes::Options> chunk_variant{
    sizeof(Stored), &ChunkVariant<Passes>::scratch_bytes, &ChunkVariant<Passes>::forward,
    &ChunkVariant<Passes>::backward, &ChunkVariant<Passes>::decode};

}  // namespace amalgam::kernels::AMALGAM_ISA
