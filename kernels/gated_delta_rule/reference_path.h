// SPDX-License-Identifier: Apache-2.0
// A reference recurrence behind the same calls as the fast variants: the variant for any processor and any dimensions,
// of the gated delta rule and of Kimi Delta Attention.
#pragma once

#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/gated_delta_rule/chunk_kernels.h"

namespace amalgam::kernels::reference {

inline float load_element(const void* data, ElementType type, int64_t at) {
    if (type == ElementType::float32) return static_cast<const float*>(data)[at];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(data)[at]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline void store_element(void* data, ElementType type, int64_t at, float value) {
    if (type == ElementType::float32) {
        static_cast<float*>(data)[at] = value;
        return;
    }
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    const bool nan = value != value;
    const uint32_t rounded = nan ? bits | 0x400000U : bits + 0x7FFFU + ((bits >> 16) & 1U);
    static_cast<uint16_t*>(data)[at] = static_cast<uint16_t>(rounded >> 16);
}

/// Where a head's rows lie inside tokens.
struct HeadRows {
    int64_t first_token;
    int64_t time;
    int64_t offset;  ///< of the head inside a token
    int64_t width;
    int64_t stride;
    ElementType type;
};

inline std::vector<float> gather(const void* data, const HeadRows& rows) {
    std::vector<float> out;
    out.reserve(rows.time * rows.width);
    for (int64_t t = 0; t < rows.time; ++t) {
        const int64_t at = (rows.first_token + t) * rows.stride + rows.offset;
        for (int64_t i = 0; i < rows.width; ++i) out.push_back(load_element(data, rows.type, at + i));
    }
    return out;
}

inline void scatter(const std::vector<float>& values, const HeadRows& rows, void* data) {
    for (int64_t t = 0; t < rows.time; ++t) {
        const int64_t at = (rows.first_token + t) * rows.stride + rows.offset;
        for (int64_t i = 0; i < rows.width; ++i) store_element(data, rows.type, at + i, values[t * rows.width + i]);
    }
}

inline HeadRows rows_of(const HeadPlace& place, ElementType type, int64_t width, int64_t stride) {
    return {place.first_token, place.time, place.head * width, width, stride, type};
}

/// What `Rule` says of its rule: Options; Sequence, of floats; gates_of(shape), raw gates of a token and head;
/// take_parameters(sequence, shape, options, inputs, head), the
/// gate's; run(sequence); run_backward(sequence, d_o, d_final);
/// dt_bias(gradients), a vector.
template <class Rule>
struct Path {
    using Options = typename Rule::Options;

    /// `state` is that of this sequence and head, or null.
    template <class Call>
    static typename Rule::Sequence sequence_of(const Call& call, const float* state, int64_t index) {
        const auto& shape = call.shape;
        const auto& options = call.options;
        const auto& inputs = call.inputs;
        const HeadPlace place = place_of(shape, inputs, index);
        const auto read = [&](const ConstRows& view, int64_t width) {
            return gather(view.data, rows_of(place, options.element_type, width, view.stride));
        };
        typename Rule::Sequence sequence;
        sequence.time = place.time;
        sequence.key_dim = shape.key_dim;
        sequence.value_dim = shape.value_dim;
        sequence.silu = options.silu;
        sequence.l2_normalize = options.l2_normalize;
        sequence.scale = options.scale;
        Rule::take_parameters(sequence, shape, options, inputs, place.head);
        sequence.q = read(inputs.q, shape.key_dim);
        sequence.k = read(inputs.k, shape.key_dim);
        sequence.v = read(inputs.v, shape.value_dim);
        sequence.a = read(inputs.a, Rule::gates_of(shape));
        sequence.b = read(inputs.b, 1);
        const int64_t state_size = shape.key_dim * shape.value_dim;
        sequence.initial_state.assign(state_size, 0.0F);
        if (state != nullptr) std::copy_n(state, state_size, sequence.initial_state.begin());
        return sequence;
    }

    template <class Call>
    static const float* initial_state(const Call& call, int64_t index) {
        const float* states = call.inputs.initial_state;
        return states == nullptr ? nullptr : states + index * call.shape.key_dim * call.shape.value_dim;
    }

    /// Of the call's o and of its gradient.
    template <class Call>
    static HeadRows output_rows(const Call& call, int64_t index) {
        const GatedDeltaRuleShape& shape = call.shape;
        return rows_of(place_of(shape, call.inputs, index), call.options.element_type, shape.value_dim,
                       shape.heads * shape.value_dim);
    }

    static size_t no_scratch(const GatedDeltaRuleShape&) { return 0; }

    static void forward(const ForwardCallOf<Options>& call, int64_t index, std::byte*) {
        const auto result = Rule::run(sequence_of(call, initial_state(call, index), index));
        scatter(result.o, output_rows(call, index), call.outputs.o);
        if (call.outputs.final_state != nullptr) {
            const auto size = static_cast<int64_t>(result.final_state.size());
            std::copy_n(result.final_state.begin(), size, call.outputs.final_state + index * size);
        }
    }

    static void backward(const BackwardCallOf<Options>& call, int64_t index, std::byte*) {
        const auto& shape = call.shape;
        const HeadPlace place = place_of(shape, call.inputs, index);
        const auto sequence = sequence_of(call, initial_state(call, index), index);
        const auto size = static_cast<int64_t>(sequence.initial_state.size());
        std::vector<float> final_gradient(size, 0.0F);
        if (call.final_state_gradient != nullptr) {
            std::copy_n(call.final_state_gradient + index * size, size, final_gradient.begin());
        }
        const auto gradients =
            Rule::run_backward(sequence, gather(call.output_gradient, output_rows(call, index)), final_gradient);
        const auto write = [&](const std::vector<float>& values, const Rows& view, int64_t width) {
            scatter(values, rows_of(place, call.options.element_type, width, view.stride), view.data);
        };
        write(gradients.q, call.gradients.q, shape.key_dim);
        write(gradients.k, call.gradients.k, shape.key_dim);
        write(gradients.v, call.gradients.v, shape.value_dim);
        write(gradients.a, call.gradients.a, Rule::gates_of(shape));
        write(gradients.b, call.gradients.b, 1);
        call.A_log_sums[index] = gradients.A_log;
        const std::vector<float> dt_bias = Rule::dt_bias(gradients);
        std::copy(dt_bias.begin(), dt_bias.end(), call.dt_bias_sums + index * Rule::gates_of(shape));
        if (call.gradients.initial_state != nullptr) {
            std::copy_n(gradients.initial_state.begin(), size, call.gradients.initial_state + index * size);
        }
    }

    static void decode(const DecodeCallOf<Options>& call, int64_t index, std::byte*) {
        const int64_t heads = call.shape.heads, slot = call.slot(index / heads);
        if (slot < 0) return;
        const int64_t size = call.shape.key_dim * call.shape.value_dim;
        float* state = call.state + (slot * heads + index % heads) * size;
        const auto result = Rule::run(sequence_of(call, state, index));
        scatter(result.o, output_rows(call, index), call.o);
        std::copy_n(result.final_state.begin(), size, state);
    }

    static constexpr ChunkKernelsOf<Options> kernels{0, &no_scratch, &forward, &backward, &decode};
};

}  // namespace amalgam::kernels::reference
