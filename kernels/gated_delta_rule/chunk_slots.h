// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gated_delta_rule/gated_delta_rule.h"

/// Where the chunks of a sequence lie in what a forward pass saves. A head of a row has `chunk_slots` of them.
namespace amalgam::kernels {

inline constexpr int chunk_tokens = 64;

/// Of a sequence of `tokens`.
inline constexpr int64_t chunks_of(int64_t tokens) {
    return (tokens + chunk_tokens - 1) / chunk_tokens;
}

/// Packed sequences need no table of their chunks: sequence s, which starts at token a, has the slots from a / 64 + s
/// on (rounded down). They suffice for its n tokens: (a + n) / 64 + s + 1 - (a / 64 + s) >= n / 64 + 1, rounded down
/// each, which is at least n / 64 rounded up.
inline constexpr int64_t first_slot(int64_t start, int64_t sequence) {
    return start / chunk_tokens + sequence;
}

inline constexpr int64_t chunk_slots(const GatedDeltaRuleShape& shape) {
    return shape.packed > 0 ? first_slot(shape.time, shape.packed) : chunks_of(shape.time);
}

/// Sequences whose states are kept apart.
inline constexpr int64_t sequences_of(const GatedDeltaRuleShape& shape) {
    return shape.packed > 0 ? shape.packed : shape.batch;
}

}  // namespace amalgam::kernels
