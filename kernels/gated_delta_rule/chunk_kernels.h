// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gated_delta_rule/chunk_slots.h"
#include "kernels/gated_delta_rule/gated_delta_rule.h"

/// What chunked_rule.h asks of the code that is compiled once per instruction set.
namespace amalgam::kernels {

/// `Options` are those of the rule: the gated delta rule's, or Kimi Delta Attention's.
template <class Options>
struct ForwardCallOf {
    GatedDeltaRuleShape shape;
    Options options;  ///< scale is resolved
    GatedDeltaRuleInputs inputs;
    GatedDeltaRuleOutputs outputs;
    std::byte* workspace;  ///< or null
};

template <class Options>
struct BackwardCallOf {
    GatedDeltaRuleShape shape;
    Options options;  ///< scale is resolved
    GatedDeltaRuleInputs inputs;
    const void* output_gradient;
    const float* final_state_gradient;  ///< or null
    const std::byte* workspace;
    GatedDeltaRuleGradients gradients;
    double* A_log_sums;    ///< [sequences, heads]: sums over time, added up over sequences by the caller
    double* dt_bias_sums;  ///< likewise, of each channel that has a dt_bias
};

template <class Options>
struct DecodeCallOf {
    GatedDeltaRuleShape shape;
    Options options;  ///< scale is resolved
    GatedDeltaRuleInputs inputs;
    float* state;
    void* o;

    /// Of a row's sequence; negative: the row is left alone.
    int64_t slot(int64_t row) const { return inputs.slot != nullptr ? inputs.slot[row] : row; }
};

/// One variant: `chunk_kernels` in the namespace of its instruction set (isa/dispatch.h). `index` is sequence * heads +
/// head; each call handles that sequence and head alone, with `scratch` (64-byte aligned) to itself. Where nothing is
/// stored for the backward pass, stored_element_bytes is 0.
template <class Options>
struct ChunkKernelsOf {
    size_t stored_element_bytes;
    size_t (*scratch_bytes)(const GatedDeltaRuleShape& shape);
    void (*forward)(const ForwardCallOf<Options>& call, int64_t index, std::byte* scratch);
    void (*backward)(const BackwardCallOf<Options>& call, int64_t index, std::byte* scratch);
    void (*decode)(const DecodeCallOf<Options>& call, int64_t index, std::byte* scratch);
};

using ForwardCall = ForwardCallOf<GatedDeltaRuleOptions>;
using BackwardCall = BackwardCallOf<GatedDeltaRuleOptions>;
using DecodeCall = DecodeCallOf<GatedDeltaRuleOptions>;
using ChunkKernels = ChunkKernelsOf<GatedDeltaRuleOptions>;

/// Dimensions are padded with zeros to whole blocks of 16 columns.
inline constexpr int padded(int64_t dim) {
    return static_cast<int>((dim + 15) / 16 * 16);
}

/// Elements saved per chunk: its incoming state and its V', both padded.
inline constexpr int64_t stored_per_chunk(const GatedDeltaRuleShape& shape) {
    return static_cast<int64_t>(padded(shape.key_dim) + chunk_tokens) * padded(shape.value_dim);
}

/// Where a head of a sequence lies.
struct HeadPlace {
    int64_t head, first_token, time;
    int64_t first_slot;  ///< of its saved chunks

    int64_t chunks() const { return chunks_of(time); }
    int tokens_in(int64_t chunk) const {
        const int64_t left = time - chunk * chunk_tokens;
        return static_cast<int>(left < chunk_tokens ? left : chunk_tokens);
    }
};

/// `index` is sequence * heads + head.
inline HeadPlace place_of(const GatedDeltaRuleShape& shape, const GatedDeltaRuleInputs& inputs, int64_t index) {
    const int64_t head = index % shape.heads, sequence = index / shape.heads;
    if (shape.packed == 0) return {head, sequence * shape.time, shape.time, index * chunk_slots(shape)};
    const int64_t start = inputs.sequence_starts[sequence];
    return {head, start, inputs.sequence_starts[sequence + 1] - start,
            head * chunk_slots(shape) + first_slot(start, sequence)};
}

}  // namespace amalgam::kernels
