// SPDX-License-Identifier: Apache-2.0
#pragma once

// Forward pass of one sequence and head, chunk after chunk (NOTES.md, "Forward").

#include "kernels/gated_delta_rule/chunk.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Tiles of one chunk and the running state; row-major fp32 values, with the layouts that products need.
struct ForwardTiles {
    template <class Dims>
    ForwardTiles(const Dims& d, Scratch& scratch) {
        const int key_tile = chunk_tokens * d.key_padded;
        const int value_tile = chunk_tokens * d.value_padded;
        const int square = chunk_tokens * chunk_tokens;
        const int state_size = d.key_padded * d.value_padded;
        q = scratch.floats(key_tile);
        k = scratch.floats(key_tile);
        v = scratch.floats(value_tile);
        state = scratch.floats(state_size);
        decay = scratch.floats(square);
        p = scratch.floats(square);
        l = scratch.floats(square);
        residual = scratch.floats(value_tile);
        q_rows = units_of(q, scratch.units(key_tile / 2));
        k_rows = units_of(k, scratch.units(key_tile / 2));
        k_pairs = units_of(k, scratch.units(key_tile / 2));
        p_rows = units_of(p, scratch.units(square / 2));
        l_rows = units_of(l, scratch.units(square / 2));
        residual_pairs = units_of(residual, scratch.units(value_tile / 2));
        state_pairs = units_of(state, scratch.units(state_size / 2));
        k_transposed = scratch.units(key_tile);
        decayed_residual_pairs = scratch.units(value_tile);
    }

    float *q, *k, *v;
    float* state;
    float* decay;
    float* p;         ///< scale Gamma Q K^T, lower
    float* l;         ///< -beta Gamma K K^T, strictly lower
    float* residual;  ///< V'
    Unit *q_rows, *k_rows, *k_pairs, *k_transposed;
    Unit *p_rows, *l_rows;
    Unit *residual_pairs, *decayed_residual_pairs;
    Unit* state_pairs;
};

/// P and -L from the loaded q, k and decays.
template <class Dims>
inline void fill_chunk_products(const Dims& d, const Gates& gates, int rows, float scale, const Unit* q_rows,
                                const Unit* k_rows, const Unit* k_transposed, const float* decay, float* p, float* l) {
    const int depth = d.key_padded / unit_depth;
    for_lower_products(
        q_rows, k_transposed, rows, depth,
        chunk_tokens, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
            const Vector factor = broadcast(scale);
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) {
#pragma GCC unroll 4
                for (int n = 0; n < S::n_vectors; ++n) {
                    const int at = (i + r) * chunk_tokens + column + n * lanes;
                    store(p + at, mul(mul(factor, load(decay + at)), sums.at[r][n]));
                }
            }
        });
    for_lower_products(
        k_rows, k_transposed, rows, depth,
        chunk_tokens, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) {
                const Vector minus_beta = broadcast(-gates.beta[i + r]);
#pragma GCC unroll 4
                for (int n = 0; n < S::n_vectors; ++n) {
                    const int j = column + n * lanes;
                    const int at = (i + r) * chunk_tokens + j;
                    const Vector x = mul(mul(minus_beta, load(decay + at)), sums.at[r][n]);
                    store(l + at, keep_first(x, i + r - j));
                }
            }
        });
}

/// V' from (I + L) V' = beta (V - e^G K S), by forward substitution in blocks of 4 rows held in registers.
template <class Dims, class Tiles>
inline void solve_residual(const Dims& d, const Gates& gates, int rows, const Tiles& t) {
    const int depth = d.key_padded / unit_depth;
    const int cols = d.value_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < rows; i += row_block) {
                Sums<row_block, vectors()> sums;
                sums.clear();
                sums.add_product(t.k_rows + i * depth, depth, 1, t.state_pairs + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) {
                    sums.combine_row(r, broadcast(-gates.beta[i + r] * gates.from_start[i + r]),
                                     broadcast(gates.beta[i + r]), t.v + (i + r) * cols + column);
                }
                sums.add_product(t.l_rows + i * (chunk_tokens / unit_depth), chunk_tokens / unit_depth, 1,
                                 t.residual_pairs + column, cols, 0, i / unit_depth);
#pragma GCC unroll 4
                for (int r = 1; r < row_block; ++r) {
#pragma GCC unroll 4
                    for (int s = 0; s < r; ++s) {
                        sums.add_row(r, broadcast(t.l[(i + r) * chunk_tokens + i + s]), s);
                    }
                }
                const int pairs_at = i / unit_depth * cols + column;
                store_values(sums, t.residual + i * cols + column, cols);
                store_pairs(sums, t.residual_pairs + pairs_at, cols);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) sums.scale_row(r, broadcast(gates.to_end[i + r]));
                store_pairs(sums, t.decayed_residual_pairs + pairs_at, cols);
            }
        });
}

/// O = scale e^G Q S + P V', written to the n real tokens.
template <class Element, class Dims, class Tiles>
inline void write_output(const Dims& d, const Gates& gates, int rows, int n_tokens, float scale, const Tiles& t,
                         Element* o, int64_t stride) {
    const int depth = d.key_padded / unit_depth;
    const int cols = d.value_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < rows; i += row_block) {
                Sums<row_block, vectors()> sums;
                sums.clear();
                sums.add_product(t.q_rows + i * depth, depth, 1, t.state_pairs + column, cols, 0, depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) sums.scale_row(r, broadcast(scale * gates.from_start[i + r]));
                sums.add_product(t.p_rows + i * (chunk_tokens / unit_depth), chunk_tokens / unit_depth, 1,
                                 t.residual_pairs + column, cols, 0, (i + row_block) / unit_depth);
#pragma GCC unroll 4
                for (int r = 0; r < row_block; ++r) {
                    if (i + r >= n_tokens) break;
                    sums.store_row(r, o + (i + r) * stride + column, d.value_dim - column);
                }
            }
        });
}

/// S <- e^G_last S + (e^(G_last - G) K)^T V'; decay(i) is e^G_last of key channel i.
template <class Dims, class Tiles, class Decay>
inline void update_state(const Dims& d, Decay decay, int rows, const Tiles& t) {
    const int cols = d.value_padded;
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            for (int i = 0; i < d.key_padded; i += row_block) {
                Sums<row_block, vectors()> sums;
                load_scaled(sums, t.state + i * cols + column, cols, [&](int r) { return decay(i + r); });
                sums.add_product(t.k_pairs + i, 1, d.key_padded, t.decayed_residual_pairs + column, cols, 0,
                                 rows / unit_depth);
                store_values(sums, t.state + i * cols + column, cols);
                store_pairs(sums, t.state_pairs + i / unit_depth * cols + column, cols);
            }
        });
}

template <class Dims>
inline void load_state(const Dims& d, const float* source, float* state) {
    for (int i = 0; i < d.key_padded; ++i) {
        for (int c = 0; c < d.value_padded; c += lanes) {
            const bool given = source != nullptr && i < d.key_dim;
            store(state + i * d.value_padded + c,
                  given ? load_first(source + i * d.value_dim + c, d.value_dim - c) : zero());
        }
    }
}

template <class Dims>
inline void save_state(const Dims& d, const float* state, float* target) {
    for (int i = 0; i < d.key_dim; ++i) {
        for (int c = 0; c < d.value_padded; c += lanes) {
            store_first(target + i * d.value_dim + c, load(state + i * d.value_padded + c), d.value_dim - c);
        }
    }
}

/// Copies a tile into the workspace, in the workspace's element type.
inline void save_tile(const float* tile, int size, Stored* target) {
    for (int at = 0; at < size; at += lanes) store_first(target + at, load(tile + at), lanes);
}

template <class Element, class Dims>
void forward_head(const Dims& d, const ForwardCall& call, int64_t index, std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    Scratch scratch(scratch_base);
    const ForwardTiles t(d, scratch);
    Gates gates;
    const auto& [shape, options, inputs, outputs, workspace] = call;
    const HeadPlace place = place_of(shape, inputs, index);
    const int64_t head = place.head;
    const int64_t state_size = shape.key_dim * shape.value_dim;
    auto* stored = reinterpret_cast<Stored*>(workspace);
    if (stored != nullptr) stored += place.first_slot * stored_per_chunk(shape);

    load_state(d, inputs.initial_state == nullptr ? nullptr : inputs.initial_state + index * state_size, t.state);
    make_pairs(t.state, t.state_pairs, d.key_padded, d.value_padded);
    for (int64_t chunk = 0; chunk < place.chunks(); ++chunk) {
        const int64_t token = place.first_token + chunk * chunk_tokens;
        const int n = place.tokens_in(chunk);
        const int rows = (n + 15) / 16 * 16;
        const Element* q = row_of<Element>(inputs.q, token, head * d.key_dim);
        const Element* k = row_of<Element>(inputs.k, token, head * d.key_dim);
        const Element* v = row_of<Element>(inputs.v, token, head * d.value_dim);
        load_activated_rows(q, inputs.q.stride, n, rows, d.key_dim, d.key_padded, options.silu, t.q);
        load_activated_rows(k, inputs.k.stride, n, rows, d.key_dim, d.key_padded, options.silu, t.k);
        load_activated_rows(v, inputs.v.stride, n, rows, d.value_dim, d.value_padded, options.silu, t.v);
        auto* o = static_cast<Element*>(outputs.o) + (token * shape.heads + head) * d.value_dim;
        if (options.l2_normalize) {
            normalize_rows(n, d.key_padded, t.q, nullptr);
            normalize_rows(n, d.key_padded, t.k, nullptr);
        }
        load_gates<Element>(inputs, head, token, n, rows, gates);
        fill_decay(gates, rows, t.decay);
        make_rows(t.q, t.q_rows, rows, d.key_padded);
        make_rows(t.k, t.k_rows, rows, d.key_padded);
        make_pairs(t.k, t.k_pairs, rows, d.key_padded);
        make_transposed(t.k_rows, t.k_transposed, rows, d.key_padded, chunk_tokens);

        fill_chunk_products(d, gates, rows, options.scale, t.q_rows, t.k_rows, t.k_transposed, t.decay, t.p, t.l);
        make_lower_rows(t.p, t.p_rows, rows, chunk_tokens);
        make_lower_rows(t.l, t.l_rows, rows, chunk_tokens);
        solve_residual(d, gates, rows, t);
        write_output(d, gates, rows, n, options.scale, t, o, shape.heads * d.value_dim);
        if (stored != nullptr) {
            save_tile(t.state, d.key_padded * d.value_padded, stored);
            save_tile(t.residual, rows * d.value_padded, stored + d.key_padded * d.value_padded);
            stored += stored_per_chunk(shape);
        }
        update_state(
            d, [&](int) { return broadcast(gates.total); }, rows, t);
    }
    if (outputs.final_state != nullptr) save_state(d, t.state, outputs.final_state + index * state_size);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
