// SPDX-License-Identifier: Apache-2.0
#pragma once

// One token of one sequence and head.

#include "kernels/gated_delta_rule/chunk_decode.h"
#include "kernels/kimi_delta_attention/block.h"

namespace amalgam::kernels::AMALGAM_ISA {

template <class Element, class Dims>
void decode_head(const Dims& d, const DecodeCallOf<KimiDeltaAttentionOptions>& call, int64_t index,
                 std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    const auto& inputs = call.inputs;
    const int64_t heads = call.shape.heads, head = index % heads, row = index / heads, slot = call.slot(row);
    if (slot < 0) return;
    Scratch scratch(scratch_base);
    float *q = scratch.floats(d.key_padded), *k = scratch.floats(d.key_padded), *v = scratch.floats(d.value_padded);
    float *read_key = scratch.floats(d.key_padded), *decay = scratch.floats(block_tokens * d.key_padded);
    load_token<Element>(d, call, head, row, q, k, v);
    Gates gates;
    load_betas<Element>(inputs, head, row, 1, gates);
    load_decays<Element>(d, inputs, call.options.lower_bound, head, row, 1, decay, nullptr);
    multiply_tiles(k, decay, d.key_padded, read_key);
    float* state = call.state + (slot * heads + head) * d.key_dim * d.value_dim;
    const auto decay_of = [&](int i) __attribute__((always_inline)) {
        return broadcast(decay[i]);
    };
    advance_state(d, Token{q, k, read_key, v, gates.beta[0], 1.0F, call.options.scale}, decay_of, state,
                  static_cast<Element*>(call.o) + index * d.value_dim);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
