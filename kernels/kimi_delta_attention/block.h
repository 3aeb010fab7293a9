// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the forward and the backward pass over a block of 16 tokens share: decays for every key channel and the products
// of pairs of tokens. Letters as in NOTES.md.

#include "kernels/gated_delta_rule/chunk.h"
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"

namespace amalgam::kernels::AMALGAM_ISA {

inline constexpr int block_tokens = 16;

/// Beta of the block's tokens. The factors e^G and e^(G_last - G) are in its rows already.
template <class Element>
inline void load_betas(const GatedDeltaRuleInputs& inputs, int64_t head, int64_t token, int n, Gates& gates) {
    alignas(64) float b[block_tokens] = {};
    for (int i = 0; i < n; ++i) b[i] = to_float(row_of<Element>(inputs.b, token + i)[head]);
    for (int i = 0; i < block_tokens; i += lanes) {
        store(gates.beta + i, keep_first(sigmoid(load(b + i)), n - i));
        store(gates.from_start + i, broadcast(1.0F));
        store(gates.to_end + i, broadcast(1.0F));
    }
}

/// The derivatives of the log decays by the raw gates and by A_log, rows of key channels.
struct GateSlopes {
    float *by_a, *by_A_log;
};

/// decay[i] = e^g of n tokens, rows of key channels; 1 beyond the sequence's end. `slopes`, if not null, are filled.
template <class Element, class Dims>
inline void load_decays(const Dims& d, const GatedDeltaRuleInputs& inputs, float lower_bound, int64_t head,
                        int64_t token, int n, float* decay, const GateSlopes* slopes) {
    alignas(64) float rate_of_head[lanes];
    store(rate_of_head, exponential(broadcast(inputs.A_log[head])));
    const Vector rate = broadcast(rate_of_head[0]), minus_rate = broadcast(-rate_of_head[0]),
                 bound = broadcast(lower_bound);
    const float* dt_bias = inputs.dt_bias + head * d.key_dim;
    for (int i = 0; i < n; ++i) {
        const Element* a = row_of<Element>(inputs.a, token + i, head * d.key_dim);
        for (int c = 0; c < d.key_padded; c += lanes) {
            const Vector z = add(load_first(a + c, d.key_dim - c), load_first(dt_bias + c, d.key_dim - c));
            const int at = i * d.key_padded + c;
            Vector g, by_a, by_A_log;
            if (lower_bound < 0) {
                const Vector y = sigmoid(mul(rate, z));
                g = mul(bound, y);
                by_a = mul(mul(g, rate), sub(broadcast(1.0F), y));
                by_A_log = mul(by_a, z);
            } else {
                g = by_A_log = mul(minus_rate, softplus(z));
                if (slopes != nullptr) by_a = mul(minus_rate, sigmoid(z));
            }
            store(decay + at, decay_exponential(g));
            if (slopes == nullptr) continue;
            store(slopes->by_a + at, by_a);
            store(slopes->by_A_log + at, by_A_log);
        }
    }
    for (int at = n * d.key_padded; at < block_tokens * d.key_padded; at += lanes) store(decay + at, broadcast(1.0F));
}

/// from_start[i] = e^G_i and to_end[i] = e^(G_last - G_i) as products of decays: nothing can overflow, and a product
/// reaches zero only where its value does.
template <class Dims>
inline void accumulate_decays(const Dims& d, const float* decay, float* from_start, float* to_end) {
    const int cols = d.key_padded;
    for (int c = 0; c < cols; c += lanes) {
        Vector product = broadcast(1.0F);
        for (int i = 0; i < block_tokens; ++i) {
            product = mul(product, load(decay + i * cols + c));
            store(from_start + i * cols + c, product);
        }
        product = broadcast(1.0F);
        for (int i = block_tokens - 1; i >= 0; --i) {
            store(to_end + i * cols + c, product);
            product = mul(product, load(decay + i * cols + c));
        }
    }
}

inline void multiply_tiles(const float* x, const float* y, int size, float* product) {
    for (int at = 0; at < size; at += lanes) store(product + at, mul(load(x + at), load(y + at)));
}

/// Tokens of the block that one pass over the channels sums pairs of.
inline constexpr int pair_rows = lanes == 16 ? 8 : 4;

/// p_ij = scale sum_c q_ic k_jc e^(G_ic - G_jc) for j <= i, l_ij = -beta_i sum_c k_ic k_jc e^(G_ic - G_jc) for j < i,
/// zero above, rows of chunk_tokens. Lanes are the tokens j: for a channel, the decayed keys k_jc e^(G_ic - G_jc) of
/// one token i follow from those of the token before by one product. `k_transposed` [key_padded][16], `decayed_keys`
/// [key_padded][lanes] are scratch.
template <class Dims>
inline void fill_pairs(const Dims& d, const Gates& gates, float scale, const float* q, const float* k,
                       const float* decay, float* k_transposed, float* decayed_keys, float* p, float* l) {
    const int cols = d.key_padded;
    for (int i = 0; i < block_tokens; i += lanes) {
        for (int c = 0; c < cols; c += lanes) {
            transpose_block(k + i * cols + c, cols, k_transposed + c * block_tokens + i, block_tokens);
        }
    }
    for (int column = 0; column < block_tokens; column += lanes) {
        for (int i = 0; i < column; ++i) {
            store(p + i * chunk_tokens + column, zero());
            store(l + i * chunk_tokens + column, zero());
        }
        for (int first = column; first < block_tokens; first += pair_rows) {
            Vector with_q[pair_rows], with_k[pair_rows];
            Lanes earlier[pair_rows];
#pragma GCC unroll 8
            for (int r = 0; r < pair_rows; ++r) {
                with_q[r] = with_k[r] = zero();
                earlier[r] = first_lanes(first + r - column);
            }
            const float *q_at = q + first * cols, *k_at = k + first * cols, *decay_at = decay + first * cols;
            for (int c = 0; c < cols; ++c) {
                const Vector keys = load(k_transposed + c * block_tokens + column);
                Vector decayed = first == column ? keys : load(decayed_keys + c * lanes);
#pragma GCC unroll 8
                for (int r = 0; r < pair_rows; ++r) {
                    decayed = choose(earlier[r], mul(broadcast(decay_at[r * cols + c]), decayed), keys);
                    with_q[r] = fma(broadcast(q_at[r * cols + c]), decayed, with_q[r]);
                    with_k[r] = fma(broadcast(k_at[r * cols + c]), decayed, with_k[r]);
                }
                store(decayed_keys + c * lanes, decayed);
            }
#pragma GCC unroll 8
            for (int r = 0; r < pair_rows; ++r) {
                const int i = first + r, at = i * chunk_tokens + column;
                store(p + at, keep_first(mul(broadcast(scale), with_q[r]), i + 1 - column));
                store(l + at, keep_first(mul(broadcast(-gates.beta[i]), with_k[r]), i - column));
            }
        }
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
