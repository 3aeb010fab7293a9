// SPDX-License-Identifier: Apache-2.0
#pragma once

// One token of one sequence and head: the recurrence itself, with the state read once and updated in place.

#include "kernels/gated_delta_rule/chunk.h"

namespace amalgam::kernels::AMALGAM_ISA {

/// One token in fp32. What S holds at a key before the token is read_decay S^T read_key with the state as it was.
struct Token {
    const float *q, *k, *read_key, *v;
    float beta, read_decay, scale;
};

/// S <- decay S; r = beta (v - S^T k); S <- S + k r^T; o = scale S^T q, with decay(i) that of key channel i.
template <class Element, class Dims, class Decay>
inline void advance_state(const Dims& d, const Token& token, Decay decay, float* state, Element* o) {
    const Vector beta = broadcast(token.beta), read_decay = broadcast(token.read_decay), scale = broadcast(token.scale);
    for_column_blocks(
        d.value_padded, [&](auto vectors, int column) __attribute__((always_inline)) {
            constexpr int n_vectors = vectors();
            Vector residual[n_vectors];
            Vector output[n_vectors];
            for (int n = 0; n < n_vectors; ++n) residual[n] = output[n] = zero();
            for (int i = 0; i < d.key_dim; ++i) {
                for (int n = 0; n < n_vectors; ++n) {
                    const int c = column + n * lanes;
                    residual[n] = fma(broadcast(token.read_key[i]),
                                      load_first(state + i * d.value_dim + c, d.value_dim - c), residual[n]);
                }
            }
            for (int n = 0; n < n_vectors; ++n) {
                residual[n] = mul(beta, sub(load(token.v + column + n * lanes), mul(read_decay, residual[n])));
            }
            for (int i = 0; i < d.key_dim; ++i) {
                for (int n = 0; n < n_vectors; ++n) {
                    const int c = column + n * lanes;
                    float* row = state + i * d.value_dim + c;
                    const Vector updated =
                        fma(broadcast(token.k[i]), residual[n], mul(decay(i), load_first(row, d.value_dim - c)));
                    store_first(row, updated, d.value_dim - c);
                    output[n] = fma(broadcast(token.q[i]), updated, output[n]);
                }
            }
            for (int n = 0; n < n_vectors; ++n) {
                const int c = column + n * lanes;
                store_first(o + c, mul(scale, output[n]), d.value_dim - c);
            }
        });
}

/// Activations of a token and head.
template <class Element, class Dims, class Call>
inline void load_token(const Dims& d, const Call& call, int64_t head, int64_t token, float* q, float* k, float* v) {
    const auto& inputs = call.inputs;
    const auto& options = call.options;
    load_activated_rows(row_of<Element>(inputs.q, token, head * d.key_dim), 0, 1, 1, d.key_dim, d.key_padded,
                        options.silu, q);
    load_activated_rows(row_of<Element>(inputs.k, token, head * d.key_dim), 0, 1, 1, d.key_dim, d.key_padded,
                        options.silu, k);
    load_activated_rows(row_of<Element>(inputs.v, token, head * d.value_dim), 0, 1, 1, d.value_dim, d.value_padded,
                        options.silu, v);
    if (options.l2_normalize) {
        normalize_rows(1, d.key_padded, q, nullptr);
        normalize_rows(1, d.key_padded, k, nullptr);
    }
}

template <class Element, class Dims>
void decode_head(const Dims& d, const DecodeCall& call, int64_t index, std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    const auto& shape = call.shape;
    const auto& inputs = call.inputs;
    const int64_t head = index % shape.heads;
    const int64_t token = index / shape.heads, slot = call.slot(token);
    if (slot < 0) return;
    Scratch scratch(scratch_base);
    float *q = scratch.floats(d.key_padded), *k = scratch.floats(d.key_padded), *v = scratch.floats(d.value_padded);
    load_token<Element>(d, call, head, token, q, k, v);
    Gates gates;
    load_gates<Element>(inputs, head, token, 1, 16, gates);
    const Vector decay = broadcast(gates.total);
    const auto decay_of = [&](int) __attribute__((always_inline)) {
        return decay;
    };
    float* state = call.state + (slot * shape.heads + head) * d.key_dim * d.value_dim;
    auto* o = static_cast<Element*>(call.o) + index * d.value_dim;
    advance_state(d, Token{q, k, k, v, gates.beta[0], gates.total, call.options.scale}, decay_of, state, o);
}

}  // namespace amalgam::kernels::AMALGAM_ISA
