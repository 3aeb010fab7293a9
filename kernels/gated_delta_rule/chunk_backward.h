// SPDX-License-Identifier: Apache-2.0
#pragma once

// Backward pass of one sequence and head, from the last chunk to the first (NOTES.md, "Backward").

#include "kernels/gated_delta_rule/chunk_forward.h"
#include "kernels/gated_delta_rule/chunk_gradients.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Tiles of one chunk; a leading d means gradient. `*_rows`, `*_pairs`, `*_transposed` are layouts of operand.h.
struct BackwardTiles {
    template <class Dims>
    BackwardTiles(const Dims& d, Scratch& scratch) {
        const int key_tile = chunk_tokens * d.key_padded;
        const int value_tile = chunk_tokens * d.value_padded;
        const int square = chunk_tokens * chunk_tokens;
        const int state_size = d.key_padded * d.value_padded;
        for (float** tile : {&q, &k, &q_slopes, &k_slopes, &dq, &dk}) *tile = scratch.floats(key_tile);
        for (float** tile : {&v_slopes, &residual, &d_o, &dy}) *tile = scratch.floats(value_tile);
        for (float** tile : {&decay, &p, &l, &dp, &dl}) *tile = scratch.floats(square);
        state = scratch.floats(state_size);
        dstate = scratch.floats(state_size);
        q_rows = units_of(q, scratch.units(key_tile / 2));
        q_pairs = units_of(q, scratch.units(key_tile / 2));
        k_rows = units_of(k, scratch.units(key_tile / 2));
        k_pairs = units_of(k, scratch.units(key_tile / 2));
        k_transposed = scratch.units(key_tile);
        residual_rows = units_of(residual, scratch.units(value_tile / 2));
        residual_transposed = scratch.units(value_tile);
        do_rows = units_of(d_o, scratch.units(value_tile / 2));
        do_pairs = units_of(d_o, scratch.units(value_tile / 2));
        dy_rows = units_of(dy, scratch.units(value_tile / 2));
        dy_pairs = units_of(dy, scratch.units(value_tile / 2));
        scaled_pairs = scratch.units(value_tile);
        p_pairs = units_of(p, scratch.units(square / 2));
        l_pairs = units_of(l, scratch.units(square / 2));
        dp_rows = units_of(dp, scratch.units(square / 2));
        dp_pairs = units_of(dp, scratch.units(square / 2));
        dl_rows = units_of(dl, scratch.units(square / 2));
        dl_pairs = units_of(dl, scratch.units(square / 2));
        state_rows = units_of(state, scratch.units(state_size / 2));
        state_transposed = scratch.units(state_size);
        dstate_rows = units_of(dstate, scratch.units(state_size / 2));
        dstate_pairs = units_of(dstate, scratch.units(state_size / 2));
        dstate_transposed = scratch.units(state_size);
    }

    float *q, *k, *q_slopes, *k_slopes, *v_slopes;
    float *residual, *state;  ///< V' and the chunk's incoming state, saved by the forward pass
    float *d_o, *dstate;      ///< given gradients: of the output, and of the chunk's outgoing state
    float* dy;                ///< gradient of beta W, the right-hand side of the forward substitution
    float *dq, *dk;
    float *decay, *p, *l;  ///< as in the forward pass: l is -L
    float *dp, *dl;        ///< gradients of Q K^T and of K K^T (strictly lower)
    Unit *q_rows, *q_pairs, *k_rows, *k_pairs, *k_transposed;
    Unit *residual_rows, *residual_transposed;
    Unit *do_rows, *do_pairs, *dy_rows, *dy_pairs, *scaled_pairs;
    Unit *p_pairs, *l_pairs, *dp_rows, *dp_pairs, *dl_rows, *dl_pairs;
    Unit *state_rows, *state_transposed;
    Unit *dstate_rows, *dstate_pairs, *dstate_transposed;
};

/// dY from (I + L)^T dY = dV' = e^(G_last - G) K dS + P^T dO, from the last block of rows to the first.
template <class Dims, class Tiles>
inline void solve_residual_gradient(const Dims& d, const Gates& gates, int rows, const Tiles& t,
                                    GateGradients& sums_by_token) {
    const int depth = d.key_padded / unit_depth;
    const int cols = d.value_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = rows - row_block; i >= 0; i -= row_block) {
                Sums<row_block, vectors()> sums;
                sums.clear();
                sums.add_product(t.k_rows + i * depth, depth, 1, t.dstate_pairs + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) sums.scale_row(r, broadcast(gates.to_end[i + r]));
                sums.add_product(t.p_pairs + i, 1, chunk_tokens, t.do_pairs + column, cols, i / unit_depth,
                                 rows / unit_depth);
                sums.add_product(t.l_pairs + i, 1, chunk_tokens, t.dy_pairs + column, cols,
                                 (i + row_block) / unit_depth, rows / unit_depth);
#pragma GCC unroll 4
                for (int r = row_block - 2; r >= 0; --r) {
#pragma GCC unroll 4
                    for (int s = r + 1; s < row_block; ++s) {
                        sums.add_row(r, broadcast(t.l[(i + s) * chunk_tokens + i + r]), s);
                    }
                }
                store_values(sums, t.dy + i * cols + column, cols);
                store_pairs(sums, t.dy_pairs + i / unit_depth * cols + column, cols);
                add_row_dots(sums, t.residual + i * cols + column, cols, sums_by_token.residual + i);
            }
        });
}

/// Gradients of Q K^T and K K^T, and their decays' share of the gate gradients.
template <class Dims>
inline void fill_square_gradients(const Dims& d, const Gates& gates, int rows, float scale, const BackwardTiles& t,
                                  GateGradients& sums_by_token) {
    const int depth = d.value_padded / unit_depth;
    for_lower_products(
        t.do_rows, t.residual_transposed, rows, depth,
        chunk_tokens, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
            const Vector factor = broadcast(scale);
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) {
                Vector row_sum = zero();
#pragma GCC unroll 4
                for (int n = 0; n < S::n_vectors; ++n) {
                    const int j = column + n * lanes;
                    const int at = (i + r) * chunk_tokens + j;
                    // The diagonal does not decay.
                    const Vector m = keep_first(mul(sums.at[r][n], load(t.p + at)), i + r - j);
                    row_sum = add(row_sum, m);
                    store(sums_by_token.columns + j, add(load(sums_by_token.columns + j), m));
                    store(t.dp + at, mul(mul(factor, load(t.decay + at)), sums.at[r][n]));
                }
                sums_by_token.rows[i + r] += sum(row_sum);
            }
        });
    for_lower_products(
        t.dy_rows, t.residual_transposed, rows, depth,
        chunk_tokens, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) {
                const Vector minus_beta = broadcast(-gates.beta[i + r]);
                Vector row_sum = zero();
#pragma GCC unroll 4
                for (int n = 0; n < S::n_vectors; ++n) {
                    const int j = column + n * lanes;
                    const int at = (i + r) * chunk_tokens + j;
                    const Vector m = mul(sums.at[r][n], load(t.l + at));
                    row_sum = add(row_sum, m);
                    store(sums_by_token.columns + j, add(load(sums_by_token.columns + j), m));
                    const Vector x = mul(mul(minus_beta, load(t.decay + at)), sums.at[r][n]);
                    store(t.dl + at, keep_first(x, i + r - j));
                }
                sums_by_token.rows[i + r] += sum(row_sum);
            }
        });
}

/// dQ = scale e^G dO S^T + dP K.
template <class Dims>
inline void fill_query_gradient(const Dims& d, const Gates& gates, int rows, float scale, const BackwardTiles& t,
                                GateGradients& sums_by_token) {
    const int depth = d.value_padded / unit_depth;
    const int cols = d.key_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < rows; i += row_block) {
                Sums<row_block, vectors()> sums;
                sums.clear();
                sums.add_product(t.do_rows + i * depth, depth, 1, t.state_transposed + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) sums.scale_row(r, broadcast(scale * gates.from_start[i + r]));
                add_row_dots(sums, t.q + i * cols + column, cols, sums_by_token.read + i);
                sums.add_product(t.dp_rows + i * (chunk_tokens / unit_depth), chunk_tokens / unit_depth, 1,
                                 t.k_pairs + column, cols, 0, (i + row_block) / unit_depth);
                store_values(sums, t.dq + i * cols + column, cols);
            }
        });
}

/// dK = -beta e^G dY S^T + e^(G_last - G) V' dS^T + dP^T Q + (dKK + dKK^T) K.
template <class Dims>
inline void fill_key_gradient(const Dims& d, const Gates& gates, int rows, const BackwardTiles& t,
                              GateGradients& sums_by_token) {
    const int depth = d.value_padded / unit_depth;
    const int square_depth = chunk_tokens / unit_depth;
    const int cols = d.key_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < rows; i += row_block) {
                const int tile_at = i * cols + column;
                Sums<row_block, vectors()> sums;
                sums.clear();
                sums.add_product(t.dy_rows + i * depth, depth, 1, t.state_transposed + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) {
                    sums.scale_row(r, broadcast(-gates.beta[i + r] * gates.from_start[i + r]));
                }
                add_row_dots(sums, t.k + tile_at, cols, sums_by_token.read + i);
                store_values(sums, t.dk + tile_at, cols);
                sums.clear();
                sums.add_product(t.residual_rows + i * depth, depth, 1, t.dstate_transposed + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) sums.scale_row(r, broadcast(gates.to_end[i + r]));
                add_row_dots(sums, t.k + tile_at, cols, sums_by_token.written + i);
                add_values(sums, t.dk + tile_at, cols);
                sums.add_product(t.dp_pairs + i, 1, chunk_tokens, t.q_pairs + column, cols, i / unit_depth,
                                 rows / unit_depth);
                sums.add_product(t.dl_pairs + i, 1, chunk_tokens, t.k_pairs + column, cols, i / unit_depth,
                                 rows / unit_depth);
                sums.add_product(t.dl_rows + i * square_depth, square_depth, 1, t.k_pairs + column, cols, 0,
                                 (i + row_block) / unit_depth);
                store_values(sums, t.dk + tile_at, cols);
            }
        });
}

/// dS <- decay dS + X^T (row_scale Y): adds one outer product to the state's gradient; decay(i) is that of key channel
/// i.
template <class Dims, class Tiles, class Decay>
inline void add_state_gradient(const Dims& d, Decay decay, int rows, const Unit* left_pairs, const float* right,
                               const float* row_scale, const Tiles& t) {
    const int cols = d.value_padded;
    make_scaled_pairs(right, row_scale, t.scaled_pairs, rows, cols);
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < d.key_padded; i += row_block) {
                Sums<row_block, vectors()> sums;
                load_scaled(sums, t.dstate + i * cols + column, cols, [&](int r) { return decay(i + r); });
                sums.add_product(left_pairs + i, 1, d.key_padded, t.scaled_pairs + column, cols, 0, rows / unit_depth);
                store_values(sums, t.dstate + i * cols + column, cols);
            }
        });
}

/// The layouts of the state gradient that the products of the next chunk read.
template <class Dims, class Tiles>
inline void lay_out_state_gradient(const Dims& d, const Tiles& t) {
    make_rows(t.dstate, t.dstate_rows, d.key_padded, d.value_padded);
    make_pairs(t.dstate, t.dstate_pairs, d.key_padded, d.value_padded);
    make_transposed(t.dstate_rows, t.dstate_transposed, d.key_padded, d.value_padded, d.key_padded);
}

/// Everything that the chunk's gradients are computed from: activations, gates, decays, and what forward saved.
template <class Element, class Dims>
inline void load_chunk(const Dims& d, const BackwardCall& call, int64_t head, int64_t token, int n, int rows,
                       const Stored* stored, Gates& gates, InverseLengths& inverse_lengths, const BackwardTiles& t) {
    const auto& inputs = call.inputs;
    const auto& options = call.options;
    const Element* q = row_of<Element>(inputs.q, token, head * d.key_dim);
    const Element* k = row_of<Element>(inputs.k, token, head * d.key_dim);
    const int64_t o_stride = call.shape.heads * d.value_dim;
    const Element* d_o = static_cast<const Element*>(call.output_gradient) + token * o_stride + head * d.value_dim;
    const Element* v = row_of<Element>(inputs.v, token, head * d.value_dim);
    load_rows(d_o, o_stride, n, rows, d.value_dim, d.value_padded, t.d_o);
    load_rows(q, inputs.q.stride, n, rows, d.key_dim, d.key_padded, options.silu ? t.q_slopes : t.q);
    load_rows(k, inputs.k.stride, n, rows, d.key_dim, d.key_padded, options.silu ? t.k_slopes : t.k);
    if (options.silu) {
        // Of v only SiLU's slope is needed: the forward pass saved what it wrote into the state.
        load_rows(v, inputs.v.stride, n, rows, d.value_dim, d.value_padded, t.v_slopes);
        activate_with_slopes<Element>(n, d.value_padded, t.v_slopes, nullptr);
        activate_with_slopes<Element>(rows, d.key_padded, t.q_slopes, t.q);
        activate_with_slopes<Element>(rows, d.key_padded, t.k_slopes, t.k);
    }
    if (options.l2_normalize) {
        normalize_rows(n, d.key_padded, t.q, inverse_lengths.q);
        normalize_rows(n, d.key_padded, t.k, inverse_lengths.k);
    }
    load_gates<Element>(inputs, head, token, n, rows, gates);
    fill_decay(gates, rows, t.decay);
    restore_tile(stored, d.key_padded, d.value_padded, t.state, t.state_rows);
    restore_tile(stored + d.key_padded * d.value_padded, rows, d.value_padded, t.residual, t.residual_rows);

    make_rows(t.q, t.q_rows, rows, d.key_padded);
    make_pairs(t.q, t.q_pairs, rows, d.key_padded);
    make_rows(t.k, t.k_rows, rows, d.key_padded);
    make_pairs(t.k, t.k_pairs, rows, d.key_padded);
    make_rows(t.d_o, t.do_rows, rows, d.value_padded);
    make_pairs(t.d_o, t.do_pairs, rows, d.value_padded);
    make_transposed(t.k_rows, t.k_transposed, rows, d.key_padded, chunk_tokens);
    make_transposed(t.state_rows, t.state_transposed, d.key_padded, d.value_padded, d.key_padded);
    make_transposed(t.residual_rows, t.residual_transposed, rows, d.value_padded, chunk_tokens);
}

template <class Element, class Dims>
void backward_head(const Dims& d, const BackwardCall& call, int64_t index, std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    Scratch scratch(scratch_base);
    const BackwardTiles t(d, scratch);
    const auto& shape = call.shape;
    const auto& options = call.options;
    const HeadPlace place = place_of(shape, call.inputs, index);
    const int64_t head = place.head;
    const int64_t state_size = shape.key_dim * shape.value_dim;
    const auto* stored = reinterpret_cast<const Stored*>(call.workspace);
    stored += place.first_slot * stored_per_chunk(shape);
    Gates gates;
    InverseLengths inverse_lengths;
    ParameterSums parameter_sums;

    const float* last = call.final_state_gradient;
    load_state(d, last == nullptr ? nullptr : last + index * state_size, t.dstate);
    for (int64_t chunk = place.chunks() - 1; chunk >= 0; --chunk) {
        const int64_t token = place.first_token + chunk * chunk_tokens;
        const int n = place.tokens_in(chunk);
        const int rows = (n + 15) / 16 * 16;
        GateGradients sums_by_token;
        lay_out_state_gradient(d, t);
        load_chunk<Element>(d, call, head, token, n, rows, stored + chunk * stored_per_chunk(shape), gates,
                            inverse_lengths, t);
        fill_chunk_products(d, gates, rows, options.scale, t.q_rows, t.k_rows, t.k_transposed, t.decay, t.p, t.l);
        make_lower_pairs(t.p, t.p_pairs, rows, chunk_tokens);
        make_lower_pairs(t.l, t.l_pairs, rows, chunk_tokens);

        solve_residual_gradient(d, gates, rows, t, sums_by_token);
        make_rows(t.dy, t.dy_rows, rows, d.value_padded);
        fill_square_gradients(d, gates, rows, options.scale, t, sums_by_token);
        make_lower_rows(t.dp, t.dp_rows, rows, chunk_tokens);
        make_lower_pairs(t.dp, t.dp_pairs, rows, chunk_tokens);
        make_lower_rows(t.dl, t.dl_rows, rows, chunk_tokens);
        make_lower_pairs(t.dl, t.dl_pairs, rows, chunk_tokens);
        fill_query_gradient(d, gates, rows, options.scale, t, sums_by_token);
        fill_key_gradient(d, gates, rows, t, sums_by_token);

        const float state_change = gates.total * dot(t.state, t.dstate, d.key_padded * d.value_padded);
        write_gate_gradients<Element>(call.gradients, gates, sums_by_token, state_change, head, token, n,
                                      parameter_sums);
        alignas(64) float read_scale[chunk_tokens];
        alignas(64) float residual_scale[chunk_tokens];
        for (int i = 0; i < rows; ++i) {
            read_scale[i] = options.scale * gates.from_start[i];
            residual_scale[i] = -gates.beta[i] * gates.from_start[i];
        }
        const Vector through_chunk = broadcast(gates.total), kept = broadcast(1.0F);
        add_state_gradient(
            d, [&](int) { return through_chunk; }, rows, t.q_pairs, t.d_o, read_scale, t);
        add_state_gradient(
            d, [&](int) { return kept; }, rows, t.k_pairs, t.dy, residual_scale, t);
        write_activation_gradients<Element>(d, call, gates, inverse_lengths, head, token, n, t);
    }
    if (call.gradients.initial_state != nullptr) {
        save_state(d, t.dstate, call.gradients.initial_state + index * state_size);
    }
    call.A_log_sums[index] = parameter_sums.A_log;
    call.dt_bias_sums[index] = parameter_sums.dt_bias;
}

}  // namespace amalgam::kernels::AMALGAM_ISA
