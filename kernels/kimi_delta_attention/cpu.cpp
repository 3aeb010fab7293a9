// SPDX-License-Identifier: Apache-2.0
// Kimi Delta Attention in blocks, for the instruction sets that have vectors (the portable variant:
// reference_path.cpp).
#include "kernels/gated_delta_rule/chunk_variant.h"
#include "kernels/kimi_delta_attention/block_backward.h"
#include "kernels/kimi_delta_attention/block_decode.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

struct Passes {
    using Options = KimiDeltaAttentionOptions;
    using ForwardTiles = BlockForwardTiles;
    using BackwardTiles = BlockTiles;
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

extern const ChunkKernelsOf<KimiDeltaAttentionOptions> kimi_chunk_kernels;
const ChunkKernelsOf<KimiDeltaAttentionOptions> kimi_chunk_kernels = chunk_variant<Passes>;

}  // namespace amalgam::kernels::AMALGAM_ISA
