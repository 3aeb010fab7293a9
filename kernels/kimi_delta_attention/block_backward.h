// SPDX-License-Identifier: Apache-2.0
#pragma once

// Backward pass of one sequence and head, from the last block to the first (NOTES.md, "Backward").

#include "kernels/gated_delta_rule/chunk_backward.h"
#include "kernels/kimi_delta_attention/block_forward.h"
#include "kernels/kimi_delta_attention/block_gradients.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Everything of the block that its gradients are computed from: activations, gates and decays.
template <class Element, class Dims, class Call>
inline void load_block(const Dims& d, const Call& call, int64_t head, int64_t token, int n, Gates& gates,
                       InverseLengths& inverse_lengths, const BlockTiles& t) {
    const auto& inputs = call.inputs;
    const auto& options = call.options;
    const int key_tile = block_tokens * d.key_padded;
    const Element* q = row_of<Element>(inputs.q, token, head * d.key_dim);
    const Element* k = row_of<Element>(inputs.k, token, head * d.key_dim);
    const Element* v = row_of<Element>(inputs.v, token, head * d.value_dim);
    const int64_t o_stride = call.shape.heads * d.value_dim;
    const Element* d_o = static_cast<const Element*>(call.output_gradient) + token * o_stride + head * d.value_dim;
    load_rows(d_o, o_stride, n, block_tokens, d.value_dim, d.value_padded, t.d_o);
    load_rows(q, inputs.q.stride, n, block_tokens, d.key_dim, d.key_padded, options.silu ? t.q_slopes : t.q);
    load_rows(k, inputs.k.stride, n, block_tokens, d.key_dim, d.key_padded, options.silu ? t.k_slopes : t.k);
    if (options.silu) {
        load_rows(v, inputs.v.stride, n, block_tokens, d.value_dim, d.value_padded, t.v_slopes);
        activate_with_slopes<Element>(n, d.value_padded, t.v_slopes, nullptr);
        activate_with_slopes<Element>(block_tokens, d.key_padded, t.q_slopes, t.q);
        activate_with_slopes<Element>(block_tokens, d.key_padded, t.k_slopes, t.k);
    }
    if (options.l2_normalize) {
        normalize_rows(n, d.key_padded, t.q, inverse_lengths.q);
        normalize_rows(n, d.key_padded, t.k, inverse_lengths.k);
    }
    load_betas<Element>(inputs, head, token, n, gates);
    load_decays<Element>(d, inputs, options.lower_bound, head, token, n, t.decay, &t.slopes);
    accumulate_decays(d, t.decay, t.from_start, t.to_end);
    multiply_tiles(t.k, t.to_end, key_tile, t.k_written);
}

/// The state after the block from the one before it and the saved V'.
template <class Dims>
inline void continue_state(const Dims& d, const BlockTiles& t, const float* before, float* after) {
    const int cols = d.value_padded;
    const float* through = t.from_start + (block_tokens - 1) * d.key_padded;
    make_pairs(t.k_written, t.k_written_pairs, block_tokens, d.key_padded);
    make_pairs(t.residual, t.residual_pairs, block_tokens, cols);
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < d.key_padded; i += row_block) {
                Sums<row_block, vectors()> sums;
                load_scaled(sums, before + i * cols + column, cols, [&](int r) { return broadcast(through[i + r]); });
                sums.add_product(t.k_written_pairs + i, 1, d.key_padded, t.residual_pairs + column, cols, 0,
                                 block_tokens / unit_depth);
                store_values(sums, after + i * cols + column, cols);
            }
        });
}

/// dS <- e^G_last dS + (e^G Q)^T (scale dO) - (e^G K)^T (beta dY), in the layouts that the next block reads.
template <class Dims>
inline void continue_state_gradient(const Dims& d, const Gates& gates, float scale, const BlockTiles& t) {
    const int cols = d.value_padded;
    const float* through = t.from_start + (block_tokens - 1) * d.key_padded;
    alignas(64) float scales[block_tokens], minus_beta[block_tokens];
    for (int i = 0; i < block_tokens; ++i) {
        scales[i] = scale;
        minus_beta[i] = -gates.beta[i];
    }
    make_scaled_pairs(t.d_o, scales, t.scaled_do_pairs, block_tokens, cols);
    make_scaled_pairs(t.dy, minus_beta, t.scaled_dy_pairs, block_tokens, cols);
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < d.key_padded; i += row_block) {
                Sums<row_block, vectors()> sums;
                load_scaled(sums, t.dstate + i * cols + column, cols, [&](int r) { return broadcast(through[i + r]); });
                sums.add_product(t.q_read_pairs + i, 1, d.key_padded, t.scaled_do_pairs + column, cols, 0,
                                 block_tokens / unit_depth);
                sums.add_product(t.k_read_pairs + i, 1, d.key_padded, t.scaled_dy_pairs + column, cols, 0,
                                 block_tokens / unit_depth);
                store_values(sums, t.dstate + i * cols + column, cols);
                store_pairs(sums, t.dstate_pairs + i / unit_depth * cols + column, cols);
            }
        });
    make_rows(t.dstate, t.dstate_rows, d.key_padded, cols);
}

/// Gradients of everything that the block read, from that of the state after it, t.dstate, which becomes that of the
/// state before it, `state`.
template <class Element, class Dims, class Call>
inline void differentiate_block(const Dims& d, const Call& call, const Gates& gates,
                                const InverseLengths& inverse_lengths, int64_t head, int64_t token, int n,
                                const float* state, const BlockTiles& t, KimiParameterSums& parameter_sums) {
    const auto& options = call.options;
    const int key_tile = block_tokens * d.key_padded;
    multiply_tiles(t.q, t.from_start, key_tile, t.q_read);
    multiply_tiles(t.k, t.from_start, key_tile, t.k_read);
    make_pairs(t.q_read, t.q_read_pairs, block_tokens, d.key_padded);
    make_pairs(t.k_read, t.k_read_pairs, block_tokens, d.key_padded);
    make_rows(t.k_written, t.k_rows, block_tokens, d.key_padded);
    make_rows(t.d_o, t.do_rows, block_tokens, d.value_padded);
    make_pairs(t.d_o, t.do_pairs, block_tokens, d.value_padded);
    fill_pairs(d, gates, options.scale, t.q, t.k, t.decay, t.k_transposed, t.decayed_keys, t.p, t.l);
    make_lower_pairs(t.p, t.p_pairs, block_tokens, chunk_tokens);
    make_lower_pairs(t.l, t.l_pairs, block_tokens, chunk_tokens);

    GateGradients sums_by_token;
    solve_residual_gradient(d, gates, block_tokens, t, sums_by_token);
    make_rows(t.dy, t.dy_rows, block_tokens, d.value_padded);
    make_rows(state, t.state_rows, d.key_padded, d.value_padded);
    fill_state_products(d, unit_depth == 1 ? reinterpret_cast<const Unit*>(state) : t.state_rows, t);
    fill_pair_gradients(d, gates, options.scale, t);
    add_pair_gradients(d, t);
    sum_states(d, state, t);
    finish_key_gradients<Element>(d, call.gradients, gates, options.scale, head, token, n, t, parameter_sums);
    for (int i = 0; i < n; ++i) {
        // dbeta * beta = dY . V', and d beta / d b = beta (1 - beta).
        from_float(sums_by_token.residual[i] * (1.0F - gates.beta[i]),
                   row_of<Element>(call.gradients.b, token + i, head));
    }
    write_activation_gradients<Element>(d, call, gates, inverse_lengths, head, token, n, t);
    continue_state_gradient(d, gates, options.scale, t);
}

template <class Element, class Dims>
void backward_head(const Dims& d, const BackwardCallOf<KimiDeltaAttentionOptions>& call, int64_t index,
                   std::byte* scratch_base) {
    constexpr int blocks_of_chunk = chunk_tokens / block_tokens;
    const FlushDenormals flush_denormals;
    Scratch scratch(scratch_base);
    const BlockTiles tiles(d, scratch);
    const auto& shape = call.shape;
    const HeadPlace place = place_of(shape, call.inputs, index);
    const int64_t state_size = shape.key_dim * shape.value_dim;
    const int padded_state = d.key_padded * d.value_padded;
    const auto* stored = reinterpret_cast<const Stored*>(call.workspace);
    stored += place.first_slot * stored_per_chunk(shape);
    Gates gates[blocks_of_chunk];
    InverseLengths inverse_lengths[blocks_of_chunk];
    KimiParameterSums parameter_sums{0, call.dt_bias_sums + index * d.key_dim};

    const float* last = call.final_state_gradient;
    load_state(d, last == nullptr ? nullptr : last + index * state_size, tiles.dstate);
    make_rows(tiles.dstate, tiles.dstate_rows, d.key_padded, d.value_padded);
    make_pairs(tiles.dstate, tiles.dstate_pairs, d.key_padded, d.value_padded);
    for (int64_t chunk = place.chunks() - 1; chunk >= 0; --chunk) {
        const int64_t token = place.first_token + chunk * chunk_tokens;
        const int n = place.tokens_in(chunk), blocks = (n + block_tokens - 1) / block_tokens;
        const Stored* saved = stored + chunk * stored_per_chunk(shape);
        restore_tile(saved, d.key_padded, d.value_padded, tiles.states, tiles.state_rows);
        for (int block = 0; block < blocks; ++block) {
            const BlockTiles t = tiles.of_block(d, block);
            const int first = block * block_tokens;
            load_block<Element>(d, call, place.head, token + first, std::min(n - first, block_tokens), gates[block],
                                inverse_lengths[block], t);
            restore_tile(saved + padded_state + first * d.value_padded, block_tokens, d.value_padded, t.residual,
                         t.residual_rows);
            float* state = tiles.states + block * padded_state;
            if (block + 1 < blocks) continue_state(d, t, state, state + padded_state);
        }
        for (int block = blocks - 1; block >= 0; --block) {
            const int first = block * block_tokens;
            differentiate_block<Element>(d, call, gates[block], inverse_lengths[block], place.head, token + first,
                                         std::min(n - first, block_tokens), tiles.states + block * padded_state,
                                         tiles.of_block(d, block), parameter_sums);
        }
    }
    if (call.gradients.initial_state != nullptr) {
        save_state(d, tiles.dstate, call.gradients.initial_state + index * state_size);
    }
    call.A_log_sums[index] = parameter_sums.A_log;
}

}  // namespace amalgam::kernels::AMALGAM_ISA
