// SPDX-License-Identifier: Apache-2.0
#pragma once

// The end of the backward pass over a chunk: gate gradients from sums per token, and the way back through
// normalisation and SiLU to the raw inputs.

#include "kernels/gated_delta_rule/chunk.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// Sums per token that the gradients of gates and beta are made of. G_i is the running sum of the log decays; every
/// term belongs to the decay between two events, so that strong decays leave no cancelling large terms.
struct GateGradients {
    alignas(64) float residual[chunk_tokens] = {};  ///< dY . V'
    alignas(64) float read[chunk_tokens] = {};      ///< from the incoming state to token i
    alignas(64) float written[chunk_tokens] = {};   ///< from token i to the outgoing state
    alignas(64) float rows[chunk_tokens] = {};      ///< from earlier tokens of the chunk to token i
    alignas(64) float columns[chunk_tokens] = {};   ///< from token i to later tokens of the chunk
};

struct InverseLengths {
    alignas(64) float q[chunk_tokens];
    alignas(64) float k[chunk_tokens];
};

struct ParameterSums {
    double A_log = 0;
    double dt_bias = 0;
};

/// out[r] += sums row r . the values at `with`.
template <class S>
AMALGAM_INLINE void add_row_dots(const S& sums, const float* with, int stride, float* out) {
#pragma GCC unroll 16
    for (int r = 0; r < S::n_rows; ++r) {
        Vector products = mul(sums.at[r][0], load(with + r * stride));
#pragma GCC unroll 4
        for (int n = 1; n < S::n_vectors; ++n) {
            products = fma(sums.at[r][n], load(with + r * stride + n * lanes), products);
        }
        out[r] += sum(products);
    }
}

template <class S>
AMALGAM_INLINE void add_values(S& sums, const float* from, int stride) {
#pragma GCC unroll 16
    for (int r = 0; r < S::n_rows; ++r) {
#pragma GCC unroll 4
        for (int n = 0; n < S::n_vectors; ++n) {
            sums.at[r][n] = add(sums.at[r][n], load(from + r * stride + n * lanes));
        }
    }
}

inline float dot(const float* x, const float* y, int size) {
    Vector sums[4] = {zero(), zero(), zero(), zero()};
    int at = 0;
    for (; at + 4 * lanes <= size; at += 4 * lanes) {
        for (int n = 0; n < 4; ++n) sums[n] = fma(load(x + at + n * lanes), load(y + at + n * lanes), sums[n]);
    }
    for (; at < size; at += lanes) sums[0] = fma(load(x + at), load(y + at), sums[0]);
    return sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
}

/// Reads a tile back from the workspace as fp32 values and in the `rows` layout (for fp32 the tile itself).
inline void restore_tile(const Stored* stored, int n_rows, int cols, float* tile, Unit* rows) {
    for (int at = 0; at < n_rows * cols; at += lanes) store(tile + at, load_first(stored + at, lanes));
    if constexpr (unit_depth == 2) std::memcpy(rows, stored, static_cast<size_t>(n_rows) * cols * sizeof(Stored));
}

/// da, db and the sums over tokens for A_log and dt_bias. dg_t collects all decays that pass over token t:
/// those read at or after t, those written before t, and the one of the state through the whole chunk.
template <class Element>
inline void write_gate_gradients(const GatedDeltaRuleGradients& gradients, const Gates& gates,
                                 const GateGradients& sums, float state_change, int64_t head, int64_t token, int n,
                                 ParameterSums& parameter_sums) {
    double later = 0;
    float from_later[chunk_tokens];
    for (int t = n - 1; t >= 0; --t) {
        later += static_cast<double>(sums.read[t]) + sums.rows[t] - sums.columns[t];
        from_later[t] = static_cast<float>(later);
    }
    double earlier = state_change;
    for (int t = 0; t < n; ++t) {
        const double dg = earlier + from_later[t];
        earlier += sums.written[t];
        const double da = dg * gates.slope[t];
        parameter_sums.A_log += dg * gates.g[t];
        parameter_sums.dt_bias += da;
        from_float(static_cast<float>(da), row_of<Element>(gradients.a, token + t, head));
        // dbeta * beta = dY . V', and d beta / d b = beta (1 - beta).
        from_float(sums.residual[t] * (1.0F - gates.beta[t]), row_of<Element>(gradients.b, token + t, head));
    }
}

/// Gradient rows of raw q or k: back through x * rsqrt(x . x + eps) (tile holds the normalised rows) and SiLU.
template <class Element>
inline void write_key_rows(int n, int dim, int cols, const float* gradient, const float* tile, const float* slopes,
                           const float* inverse_lengths, const GatedDeltaRuleOptions& options, Element* out,
                           int64_t stride) {
    for (int i = 0; i < n; ++i) {
        const float* row = gradient + i * cols;
        const float* x = tile + i * cols;
        Vector along = zero();
        Vector factor = broadcast(1.0F);
        if (options.l2_normalize) {
            Vector products = zero();
            for (int c = 0; c < cols; c += lanes) products = fma(load(row + c), load(x + c), products);
            along = broadcast(-sum(products));
            factor = broadcast(inverse_lengths[i]);
        }
        for (int c = 0; c < cols; c += lanes) {
            Vector value = mul(factor, fma(along, load(x + c), load(row + c)));
            if (options.silu) value = mul(value, load(slopes + i * cols + c));
            store_first(out + i * stride + c, value, dim - c);
        }
    }
}

template <class Element, class Dims, class Tiles, class Call>
inline void write_activation_gradients(const Dims& d, const Call& call, const Gates& gates,
                                       const InverseLengths& inverse_lengths, int64_t head, int64_t token, int n,
                                       const Tiles& t) {
    const auto& out = call.gradients;
    const auto& options = call.options;
    write_key_rows(n, d.key_dim, d.key_padded, t.dq, t.q, t.q_slopes, inverse_lengths.q, options,
                   row_of<Element>(out.q, token, head * d.key_dim), out.q.stride);
    write_key_rows(n, d.key_dim, d.key_padded, t.dk, t.k, t.k_slopes, inverse_lengths.k, options,
                   row_of<Element>(out.k, token, head * d.key_dim), out.k.stride);
    Element* dv = row_of<Element>(out.v, token, head * d.value_dim);
    for (int i = 0; i < n; ++i) {
        const Vector beta = broadcast(gates.beta[i]);
        for (int c = 0; c < d.value_padded; c += lanes) {
            Vector value = mul(beta, load(t.dy + i * d.value_padded + c));
            if (options.silu) value = mul(value, load(t.v_slopes + i * d.value_padded + c));
            store_first(dv + i * out.v.stride + c, value, d.value_dim - c);
        }
    }
}

}  // namespace amalgam::kernels::AMALGAM_ISA
