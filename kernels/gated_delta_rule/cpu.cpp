// SPDX-License-Identifier: Apache-2.0
// The gated delta rule in chunks, for the instruction sets that have vectors (the portable variant:
// reference_path.cpp).
#include "kernels/gated_delta_rule/chunk_backward.h"
#include "kernels/gated_delta_rule/chunk_decode.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

size_t scratch_bytes(const GatedDeltaRuleShape& shape) {
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
void with_element(ElementType type, Visit visit) {
    if (type == ElementType::bfloat16) {
        visit(uint16_t{});
    } else if constexpr (unit_depth == 1) {
        visit(float{});
    }
}

void forward(const ForwardCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { forward_head<decltype(element)>(dims, call, index, scratch); });
    });
}

void backward(const BackwardCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { backward_head<decltype(element)>(dims, call, index, scratch); });
    });
}

void decode(const DecodeCall& call, int64_t index, std::byte* scratch) {
    with_element(call.options.element_type, [&](auto element) {
        with_dims(call.shape, [&](auto dims) { decode_head<decltype(element)>(dims, call, index, scratch); });
    });
}

}  // namespace

extern const ChunkKernels chunk_kernels;
const ChunkKernels chunk_kernels{sizeof(Stored), &scratch_bytes, &forward, &backward, &decode};

}  // namespace amalgam::kernels::AMALGAM_ISA
