// SPDX-License-Identifier: Apache-2.0
#pragma once

// One token of one sequence and head: the recurrence itself, with the state read once and updated in place.

#include "kernels/gated_delta_rule/chunk.h"

namespace amalgam::kernels::AMALGAM_ISA {

template <class Element, class Dims>
void decode_head(const Dims& d, const DecodeCall& call, int64_t index, std::byte* scratch_base) {
    const FlushDenormals flush_denormals;
    const auto& shape = call.shape;
    const auto& inputs = call.inputs;
    const auto& options = call.options;
    const int64_t head = index % shape.heads;
    const int64_t token = index / shape.heads, slot = call.slot(token);
    if (slot < 0) return;
    Scratch scratch(scratch_base);
    float* q = scratch.floats(d.key_padded);
    float* k = scratch.floats(d.key_padded);
    float* v = scratch.floats(d.value_padded);
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
    Gates gates;
    load_gates<Element>(inputs, head, token, 1, 16, gates);
    const Vector beta = broadcast(gates.beta[0]);
    const Vector decay = broadcast(gates.total);
    const Vector scale = broadcast(options.scale);

    float* state = call.state + (slot * shape.heads + head) * d.key_dim * d.value_dim;
    auto* o = static_cast<Element*>(call.o) + index * d.value_dim;
    for_column_blocks(
        d.value_padded, [&](auto vectors, int column) __attribute__((always_inline)) {
            constexpr int n_vectors = vectors();
            Vector residual[n_vectors];
            Vector output[n_vectors];
            for (int n = 0; n < n_vectors; ++n) residual[n] = output[n] = zero();
            for (int i = 0; i < d.key_dim; ++i) {
                for (int n = 0; n < n_vectors; ++n) {
                    const int c = column + n * lanes;
                    residual[n] =
                        fma(broadcast(k[i]), load_first(state + i * d.value_dim + c, d.value_dim - c), residual[n]);
                }
            }
            for (int n = 0; n < n_vectors; ++n) {
                residual[n] = mul(beta, sub(load(v + column + n * lanes), mul(decay, residual[n])));
            }
            for (int i = 0; i < d.key_dim; ++i) {
                for (int n = 0; n < n_vectors; ++n) {
                    const int c = column + n * lanes;
                    float* row = state + i * d.value_dim + c;
                    const Vector updated =
                        fma(broadcast(k[i]), residual[n], mul(decay, load_first(row, d.value_dim - c)));
                    store_first(row, updated, d.value_dim - c);
                    output[n] = fma(broadcast(q[i]), updated, output[n]);
                }
            }
            for (int n = 0; n < n_vectors; ++n) {
                const int c = column + n * lanes;
                store_first(o + c, mul(scale, output[n]), d.value_dim - c);
            }
        });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
