// SPDX-License-Identifier: Apache-2.0
#pragma once

// Forward pass of one sequence and head, block after block (NOTES.md, "Forward").

#include "kernels/gated_delta_rule/chunk_forward.h"
#include "kernels/kimi_delta_attention/block.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Tiles of one block and the running state, under the names of the gated delta rule's, whose functions read them.
struct BlockForwardTiles {
    template <class Dims>
    BlockForwardTiles(const Dims& d, Scratch& scratch) {
        const int key_tile = block_tokens * d.key_padded;
        const int value_tile = block_tokens * d.value_padded;
        const int square = block_tokens * chunk_tokens;
        const int state_size = d.key_padded * d.value_padded;
        for (float** tile : {&q, &k, &decay, &from_start, &to_end, &q_read, &k_read, &k_written, &k_transposed})
            *tile = scratch.floats(key_tile);
        for (float** tile : {&v, &residual}) *tile = scratch.floats(value_tile);
        for (float** tile : {&p, &l}) *tile = scratch.floats(square);
        state = scratch.floats(state_size);
        decayed_keys = scratch.floats(d.key_padded * lanes);
        q_rows = units_of(q_read, scratch.units(key_tile / 2));
        k_rows = units_of(k_read, scratch.units(key_tile / 2));
        k_pairs = units_of(k_written, scratch.units(key_tile / 2));
        p_rows = units_of(p, scratch.units(square / 2));
        l_rows = units_of(l, scratch.units(square / 2));
        residual_pairs = units_of(residual, scratch.units(value_tile / 2));
        state_pairs = units_of(state, scratch.units(state_size / 2));
        decayed_residual_pairs = scratch.units(value_tile);
    }

    float *q, *k, *v;
    float *decay, *from_start, *to_end;  ///< e^g, e^G, e^(G_last - G)
    float *q_read, *k_read, *k_written;  ///< e^G Q, e^G K, e^(G_last - G) K
    float *k_transposed, *decayed_keys;
    float* state;
    float *p, *l;                     ///< as fill_pairs says
    float* residual;                  ///< V'
    Unit *q_rows, *k_rows, *k_pairs;  ///< of the three decayed tiles
    Unit *p_rows, *l_rows;
    Unit *residual_pairs, *decayed_residual_pairs;
    Unit* state_pairs;
};

template <class Element, class Dims>
void forward_head(const Dims& d, const ForwardCallOf<KimiDeltaAttentionOptions>& call, int64_t index,
                  std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    Scratch scratch(scratch_base);
    const BlockForwardTiles t(d, scratch);
    Gates gates;
    const auto& [shape, options, inputs, outputs, workspace] = call;
    const HeadPlace place = place_of(shape, inputs, index);
    const int64_t head = place.head;
    const int64_t state_size = shape.key_dim * shape.value_dim;
    const int key_tile = block_tokens * d.key_padded;
    auto* stored = reinterpret_cast<Stored*>(workspace);
    if (stored != nullptr) stored += place.first_slot * stored_per_chunk(shape);

    load_state(d, inputs.initial_state == nullptr ? nullptr : inputs.initial_state + index * state_size, t.state);
    make_pairs(t.state, t.state_pairs, d.key_padded, d.value_padded);
    for (int64_t first = 0; first < place.time; first += block_tokens) {
        const int64_t token = place.first_token + first;
        const int n = static_cast<int>(std::min<int64_t>(place.time - first, block_tokens));
        const Element* q = row_of<Element>(inputs.q, token, head * d.key_dim);
        const Element* k = row_of<Element>(inputs.k, token, head * d.key_dim);
        const Element* v = row_of<Element>(inputs.v, token, head * d.value_dim);
        load_activated_rows(q, inputs.q.stride, n, block_tokens, d.key_dim, d.key_padded, options.silu, t.q);
        load_activated_rows(k, inputs.k.stride, n, block_tokens, d.key_dim, d.key_padded, options.silu, t.k);
        load_activated_rows(v, inputs.v.stride, n, block_tokens, d.value_dim, d.value_padded, options.silu, t.v);
        if (options.l2_normalize) {
            normalize_rows(n, d.key_padded, t.q, nullptr);
            normalize_rows(n, d.key_padded, t.k, nullptr);
        }
        load_betas<Element>(inputs, head, token, n, gates);
        load_decays<Element>(d, inputs, options.lower_bound, head, token, n, t.decay, nullptr);
        accumulate_decays(d, t.decay, t.from_start, t.to_end);
        fill_pairs(d, gates, options.scale, t.q, t.k, t.decay, t.k_transposed, t.decayed_keys, t.p, t.l);
        multiply_tiles(t.q, t.from_start, key_tile, t.q_read);
        multiply_tiles(t.k, t.from_start, key_tile, t.k_read);
        multiply_tiles(t.k, t.to_end, key_tile, t.k_written);
        make_rows(t.q_read, t.q_rows, block_tokens, d.key_padded);
        make_rows(t.k_read, t.k_rows, block_tokens, d.key_padded);
        make_pairs(t.k_written, t.k_pairs, block_tokens, d.key_padded);
        make_lower_rows(t.p, t.p_rows, block_tokens, chunk_tokens);
        make_lower_rows(t.l, t.l_rows, block_tokens, chunk_tokens);

        solve_residual(d, gates, block_tokens, t);
        auto* o = static_cast<Element*>(outputs.o) + (token * shape.heads + head) * d.value_dim;
        write_output(d, gates, block_tokens, n, options.scale, t, o, shape.heads * d.value_dim);
        if (stored != nullptr) {
            // A chunk's place: its incoming state, then V' of its four blocks.
            const int64_t block = first % chunk_tokens / block_tokens;
            const int whole_state = d.key_padded * d.value_padded, value_tile = block_tokens * d.value_padded;
            if (block == 0) save_tile(t.state, whole_state, stored);
            save_tile(t.residual, value_tile, stored + whole_state + block * value_tile);
            if (block == chunk_tokens / block_tokens - 1) stored += stored_per_chunk(shape);
        }
        const float* through = t.from_start + (block_tokens - 1) * d.key_padded;
        update_state(
            d, [&](int i) { return broadcast(through[i]); }, block_tokens, t);
    }
    if (outputs.final_state != nullptr) save_state(d, t.state, outputs.final_state + index * state_size);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
