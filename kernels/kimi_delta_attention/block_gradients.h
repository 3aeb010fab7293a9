// SPDX-License-Identifier: Apache-2.0
#pragma once

// The steps of the backward pass over a block: products with states, gradients of pairs of tokens, and those of the
// gates, which collect every decay that passes over a token.

#include "kernels/gated_delta_rule/chunk_gradients.h"
#include "kernels/kimi_delta_attention/block.h"

namespace amalgam::kernels::AMALGAM_ISA {

struct KimiParameterSums {
    double A_log;
    double* dt_bias;  ///< of the key channels
};

/// Tiles of a block; a leading d means gradient. Those above the line exist for every block of a chunk.
struct BlockTiles {
    template <class Dims>
    BlockTiles(const Dims& d, Scratch& scratch) {
        const int key_tile = block_tokens * d.key_padded;
        const int value_tile = block_tokens * d.value_padded;
        const int square = block_tokens * chunk_tokens;
        const int state_size = d.key_padded * d.value_padded;
        const int blocks = chunk_tokens / block_tokens;
        for (float** tile :
             {&q, &k, &q_slopes, &k_slopes, &decay, &slopes.by_a, &slopes.by_A_log, &from_start, &to_end, &k_written})
            *tile = scratch.floats(blocks * key_tile);
        for (float** tile : {&v_slopes, &d_o, &residual}) *tile = scratch.floats(blocks * value_tile);
        residual_rows = scratch.units(blocks * value_tile / 2);
        states = scratch.floats(blocks * state_size);

        for (float** tile : {&q_read, &k_read, &k_transposed, &dq, &dk, &dk_read, &dk_written, &dq_pairs, &dk_row_pairs,
                             &dk_column_pairs})
            *tile = scratch.floats(key_tile);
        dy = scratch.floats(value_tile);
        for (float** tile : {&p, &l, &dp, &dl}) *tile = scratch.floats(square);
        decayed_keys = scratch.floats(d.key_padded * lanes);
        by_channel = scratch.floats(d.key_padded);
        products = scratch.floats(3 * key_tile);
        dstate = scratch.floats(state_size);
        do_rows_place = scratch.units(value_tile / 2);
        do_pairs_place = scratch.units(value_tile / 2);
        residual_pairs_place = scratch.units(value_tile / 2);
        k_rows_place = scratch.units(key_tile / 2);
        k_written_pairs_place = scratch.units(key_tile / 2);
        q_read_pairs = units_of(q_read, scratch.units(key_tile / 2));
        k_read_pairs = units_of(k_read, scratch.units(key_tile / 2));
        dy_rows = units_of(dy, scratch.units(value_tile / 2));
        dy_pairs = units_of(dy, scratch.units(value_tile / 2));
        p_pairs = units_of(p, scratch.units(square / 2));
        l_pairs = units_of(l, scratch.units(square / 2));
        value_columns = scratch.units(3 * value_tile);
        scaled_do_pairs = scratch.units(value_tile);
        scaled_dy_pairs = scratch.units(value_tile);
        state_rows = scratch.units(state_size / unit_depth);
        dstate_rows = units_of(dstate, scratch.units(state_size / 2));
        dstate_pairs = units_of(dstate, scratch.units(state_size / 2));
    }

    template <class Dims>
    BlockTiles of_block(const Dims& d, int block) const {
        BlockTiles t = *this;
        const int key_at = block * block_tokens * d.key_padded, value_at = block * block_tokens * d.value_padded;
        for (float** tile : {&t.q, &t.k, &t.q_slopes, &t.k_slopes, &t.decay, &t.slopes.by_a, &t.slopes.by_A_log,
                             &t.from_start, &t.to_end, &t.k_written})
            *tile += key_at;
        for (float** tile : {&t.v_slopes, &t.d_o, &t.residual}) *tile += value_at;
        t.residual_rows = units_of(t.residual, residual_rows + value_at / 2);
        t.residual_pairs = units_of(t.residual, residual_pairs_place);
        t.do_rows = units_of(t.d_o, do_rows_place);
        t.do_pairs = units_of(t.d_o, do_pairs_place);
        t.k_rows = units_of(t.k_written, k_rows_place);
        t.k_written_pairs = units_of(t.k_written, k_written_pairs_place);
        return t;
    }

    float *q, *k, *q_slopes, *k_slopes, *v_slopes;
    float *decay, *from_start, *to_end;  ///< e^g, e^G, e^(G_last - G)
    GateSlopes slopes;
    float* k_written;                ///< e^(G_last - G) K
    float *d_o, *residual, *states;  ///< V' and the states before the blocks
    Unit* residual_rows;
    // ----
    float *q_read, *k_read;  ///< e^G Q, e^G K
    float *k_transposed, *decayed_keys;
    float *p, *l;    ///< as fill_pairs says
    float *dp, *dl;  ///< gradients of the products of pairs: with q, and with k
    float *dy, *dstate;
    float *dq, *dk;
    float *dk_read, *dk_written;                       ///< through reads of the state, through writes into it
    float *dq_pairs, *dk_row_pairs, *dk_column_pairs;  ///< through pairs of different tokens, as later and earlier one
    float* by_channel;                                 ///< sum over columns of S dS
    float* products;
    Unit *do_rows, *do_pairs, *residual_pairs, *k_rows, *k_written_pairs;  ///< k_rows: of k_written
    Unit *do_rows_place, *do_pairs_place, *residual_pairs_place, *k_rows_place, *k_written_pairs_place;
    Unit *q_read_pairs, *k_read_pairs;
    Unit *dy_rows, *dy_pairs, *p_pairs, *l_pairs;
    Unit* value_columns;  ///< dO, dY and V', transposed, beside each other
    Unit *scaled_do_pairs, *scaled_dy_pairs;
    Unit *state_rows, *dstate_rows, *dstate_pairs;
};

/// Transposes [key_padded][16] to [16][key_padded].
template <class Dims>
inline void transpose_keys(const Dims& d, const float* in, int in_stride, float* out) {
    for (int c = 0; c < d.key_padded; c += lanes) {
        for (int i = 0; i < block_tokens; i += lanes) {
            transpose_block(in + c * in_stride + i, in_stride, out + i * d.key_padded + c, d.key_padded);
        }
    }
}

/// dq = dO S^T, dk_read = dY S^T, dk_written = V' dS^T. The states are the left operands, as they are: blocks of tokens
/// are quicker to transpose.
template <class Dims>
inline void fill_state_products(const Dims& d, const Unit* state_rows, const BlockTiles& t) {
    constexpr int columns = 3 * block_tokens;
    const int depth = d.value_padded / unit_depth;
    const Unit* tiles[] = {t.do_rows, t.dy_rows, t.residual_rows};
    for (int i = 0; i < 3; ++i) {
        make_transposed(tiles[i], t.value_columns + i * block_tokens, block_tokens, d.value_padded, columns);
    }
    const auto multiply = [&](const Unit* left, int first, int width) __attribute__((always_inline)) {
        for_column_blocks(
            width, [&](auto vectors, int column) __attribute__((always_inline)) {
                constexpr int rows = vectors() == 1 ? 16 : 8;
                for (int i = 0; i < d.key_padded; i += rows) {
                    Sums<rows, vectors()> sums;
                    sums.clear();
                    sums.add_product(left + i * depth, depth, 1, t.value_columns + first + column, columns, 0, depth);
                    store_values(sums, t.products + i * columns + first + column, columns);
                }
            });
    };
    multiply(state_rows, 0, 2 * block_tokens);
    multiply(t.dstate_rows, 2 * block_tokens, block_tokens);
    transpose_keys(d, t.products, columns, t.dq);
    transpose_keys(d, t.products + block_tokens, columns, t.dk_read);
    transpose_keys(d, t.products + 2 * block_tokens, columns, t.dk_written);
}

/// dp = scale dO V'^T on and below the diagonal, dl = -beta dY V'^T below it.
template <class Dims>
inline void fill_pair_gradients(const Dims& d, const Gates& gates, float scale, const BlockTiles& t) {
    constexpr int columns = 3 * block_tokens;
    const int depth = d.value_padded / unit_depth;
    const Unit* residual_transposed = t.value_columns + 2 * block_tokens;
    for_lower_products(
        t.do_rows, residual_transposed, block_tokens, depth,
        columns, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) sums.scale_row(r, broadcast(scale));
            store_values(sums, t.dp + i * chunk_tokens + column, chunk_tokens);
        });
    for_lower_products(
        t.dy_rows, residual_transposed, block_tokens, depth,
        columns, [&](auto& sums, int i, int column) __attribute__((always_inline)) {
            using S = std::decay_t<decltype(sums)>;
#pragma GCC unroll 16
            for (int r = 0; r < S::n_rows; ++r) sums.scale_row(r, broadcast(-gates.beta[i + r]));
            store_values(sums, t.dl + i * chunk_tokens + column, chunk_tokens);
        });
}

/// With E_ij = e^(G_i - G_j), a row of channels: dq_pairs_i = sum_j dp_ij k_j E_ij, dk_row_pairs_i = sum_j dl_ij k_j
/// E_ij, dk_column_pairs_j = sum_i (dp_ij q_i + dl_ij k_i) E_ij, over j < i. E_i(j-1) follows from E_ij by one product.
template <class Dims>
inline void add_pair_gradients(const Dims& d, const BlockTiles& t) {
    const int cols = d.key_padded;
    for (int at = 0; at < block_tokens * cols; at += lanes) store(t.dk_column_pairs + at, zero());
    for_column_blocks(
        cols, [&](auto vectors, int column) __attribute__((always_inline)) {
            constexpr int n_vectors = vectors();
            for (int i = 0; i < block_tokens; ++i) {
                Vector decay[n_vectors], dq[n_vectors], dk[n_vectors], q[n_vectors], k[n_vectors];
#pragma GCC unroll 4
                for (int n = 0; n < n_vectors; ++n) {
                    const int at = i * cols + column + n * lanes;
                    decay[n] = load(t.decay + at);
                    q[n] = load(t.q + at);
                    k[n] = load(t.k + at);
                    dq[n] = dk[n] = zero();
                }
                for (int j = i - 1; j >= 0; --j) {
                    const Vector dp = broadcast(t.dp[i * chunk_tokens + j]), dl = broadcast(t.dl[i * chunk_tokens + j]);
#pragma GCC unroll 4
                    for (int n = 0; n < n_vectors; ++n) {
                        const int at = j * cols + column + n * lanes;
                        const Vector key = mul(decay[n], load(t.k + at));
                        dq[n] = fma(dp, key, dq[n]);
                        dk[n] = fma(dl, key, dk[n]);
                        const Vector row = fma(dp, q[n], mul(dl, k[n]));
                        store(t.dk_column_pairs + at, fma(decay[n], row, load(t.dk_column_pairs + at)));
                        decay[n] = mul(decay[n], load(t.decay + at));
                    }
                }
#pragma GCC unroll 4
                for (int n = 0; n < n_vectors; ++n) {
                    const int at = i * cols + column + n * lanes;
                    store(t.dq_pairs + at, dq[n]);
                    store(t.dk_row_pairs + at, dk[n]);
                }
            }
        });
}

/// by_channel = the sums of S dS along its rows, with dS of the state after the block.
template <class Dims>
inline void sum_states(const Dims& d, const float* state, const BlockTiles& t) {
    const int cols = d.value_padded;
    for (int i = 0; i < d.key_padded; i += lanes) {
        alignas(64) float partial[lanes * lanes], transposed[lanes * lanes];
        for (int r = 0; r < lanes; ++r) {
            const float *x = state + (i + r) * cols, *y = t.dstate + (i + r) * cols;
            Vector products = zero();
            for (int c = 0; c < cols; c += lanes) products = fma(load(x + c), load(y + c), products);
            store(partial + r * lanes, products);
        }
        transpose_block(partial, lanes, transposed, lanes);
        Vector total = zero();
        for (int r = 0; r < lanes; ++r) total = add(total, load(transposed + r * lanes));
        store(t.by_channel + i, total);
    }
}

/// dq and dk from their parts, da, and the sums over tokens for A_log and dt_bias. What passes over a token: reads at
/// or after it, writes before it, pairs on both sides, and the state through the whole block; a token's pair with
/// itself does not decay, and stays out of the sums.
template <class Element, class Dims>
inline void finish_key_gradients(const Dims& d, const GatedDeltaRuleGradients& gradients, const Gates& gates,
                                 float scale, int64_t head, int64_t token, int n, const BlockTiles& t,
                                 KimiParameterSums& parameter_sums) {
    const int cols = d.key_padded;
    Vector by_A_log = zero();
    for (int c = 0; c < cols; c += lanes) {
        Vector later[block_tokens], reads = zero();
        for (int i = block_tokens - 1; i >= 0; --i) {
            const int at = i * cols + c;
            const Vector q = load(t.q + at), k = load(t.k + at), from_start = load(t.from_start + at);
            const Vector dq = fma(mul(broadcast(scale), from_start), load(t.dq + at), load(t.dq_pairs + at));
            const Vector dk_row =
                fma(mul(broadcast(-gates.beta[i]), from_start), load(t.dk_read + at), load(t.dk_row_pairs + at));
            const Vector dk_column = load(t.dk_column_pairs + at);
            const Vector dk_written = mul(load(t.to_end + at), load(t.dk_written + at));
            reads = add(reads, fma(q, dq, mul(k, sub(dk_row, dk_column))));
            later[i] = reads;
            const Vector with_itself = broadcast(t.dp[i * chunk_tokens + i]);
            store(t.dq + at, fma(with_itself, k, dq));
            store(t.dk + at, fma(with_itself, q, add(add(dk_row, dk_column), dk_written)));
            store(t.dk_written + at, dk_written);
        }
        Vector earlier = mul(load(t.from_start + (block_tokens - 1) * cols + c), load(t.by_channel + c));
        Vector by_dt_bias = zero();
        for (int i = 0; i < n; ++i) {
            const int at = i * cols + c;
            const Vector dg = add(later[i], earlier);
            earlier = fma(load(t.k + at), load(t.dk_written + at), earlier);
            const Vector da = mul(dg, load(t.slopes.by_a + at));
            by_A_log = fma(dg, load(t.slopes.by_A_log + at), by_A_log);
            by_dt_bias = add(by_dt_bias, da);
            store_first(row_of<Element>(gradients.a, token + i, head * d.key_dim) + c, da, d.key_dim - c);
        }
        alignas(64) float sums[lanes];
        store(sums, by_dt_bias);
        for (int i = 0; i < lanes && c + i < d.key_dim; ++i) parameter_sums.dt_bias[c + i] += sums[i];
    }
    parameter_sums.A_log += sum(by_A_log);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
