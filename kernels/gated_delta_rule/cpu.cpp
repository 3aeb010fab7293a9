// SPDX-License-Identifier: Apache-2.0
// The gated delta rule in chunks, for the instruction sets that have vectors (the portable variant:
// reference_path.cpp).
#include "kernels/gated_delta_rule/chunk_backward.h"
#include "kernels/gated_delta_rule/chunk_decode.h"
#include "kernels/gated_delta_rule/chunk_variant.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

struct Passes {
    using Options = GatedDeltaRuleOptions;
    using ForwardTiles = AMALGAM_ISA::ForwardTiles;
    using BackwardTiles = AMALGAM_ISA::BackwardTiles;
    template <class Element, class... Arguments>
    static void forward(const Arguments&... arguments) {
        forward_head<Element>(arguments...);
    }
    template <class Element, class... Arguments>
    static void backward(const Arguments&... arguments) {
        backward_head<Element>(arguments...);
    }
    template <class Element, class... Arguments>
    static void decode(const Arguments&... arguments) {
        decode_head<Element>(arguments...);
    }
};

}  // namespace

extern const ChunkKernels chunk_kernels;
const ChunkKernels chunk_kernels = chunk_variant<Passes>;

}  // namespace amalgam::kernels::AMALGAM_ISA
