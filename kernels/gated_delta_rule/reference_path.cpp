// SPDX-License-Identifier: Apache-2.0
// The reference recurrence behind the same calls as the fast variants: the variant for any processor and any
// dimensions.
#include <algorithm>
#include <cstring>

#include "kernels/gated_delta_rule/chunk_kernels.h"
#include "kernels/gated_delta_rule/reference.h"

namespace amalgam::kernels {
namespace {

float load_element(const void* data, ElementType type, int64_t at) {
    if (type == ElementType::float32) return static_cast<const float*>(data)[at];
    const uint32_t bits = static_cast<uint32_t>(static_cast<const uint16_t*>(data)[at]) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

void store_element(void* data, ElementType type, int64_t at, float value) {
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

std::vector<float> gather(const void* data, const HeadRows& rows) {
    std::vector<float> out;
    out.reserve(rows.time * rows.width);
    for (int64_t t = 0; t < rows.time; ++t) {
        const int64_t at = (rows.first_token + t) * rows.stride + rows.offset;
        for (int64_t i = 0; i < rows.width; ++i) out.push_back(load_element(data, rows.type, at + i));
    }
    return out;
}

void scatter(const std::vector<float>& values, const HeadRows& rows, void* data) {
    for (int64_t t = 0; t < rows.time; ++t) {
        const int64_t at = (rows.first_token + t) * rows.stride + rows.offset;
        for (int64_t i = 0; i < rows.width; ++i) store_element(data, rows.type, at + i, values[t * rows.width + i]);
    }
}

HeadRows rows_of(const HeadPlace& place, ElementType type, int64_t width, int64_t stride) {
    return {place.first_token, place.time, place.head * width, width, stride, type};
}

/// `state` is that of this sequence and head, or null.
GatedDeltaRuleSequence<float> sequence_of(const GatedDeltaRuleShape& shape, const GatedDeltaRuleOptions& options,
                                          const GatedDeltaRuleInputs& inputs, const float* state, int64_t index) {
    const HeadPlace place = place_of(shape, inputs, index);
    const auto read = [&](const ConstRows& view, int64_t width) {
        return gather(view.data, rows_of(place, options.element_type, width, view.stride));
    };
    GatedDeltaRuleSequence<float> sequence;
    sequence.time = place.time;
    sequence.key_dim = shape.key_dim;
    sequence.value_dim = shape.value_dim;
    sequence.silu = options.silu;
    sequence.l2_normalize = options.l2_normalize;
    sequence.scale = options.scale;
    sequence.A_log = inputs.A_log[place.head];
    sequence.dt_bias = inputs.dt_bias[place.head];
    sequence.q = read(inputs.q, shape.key_dim);
    sequence.k = read(inputs.k, shape.key_dim);
    sequence.v = read(inputs.v, shape.value_dim);
    sequence.a = read(inputs.a, 1);
    sequence.b = read(inputs.b, 1);
    const int64_t state_size = shape.key_dim * shape.value_dim;
    sequence.initial_state.assign(state_size, 0.0F);
    if (state != nullptr) std::copy_n(state, state_size, sequence.initial_state.begin());
    return sequence;
}

const float* initial_state(const GatedDeltaRuleShape& shape, const GatedDeltaRuleInputs& inputs, int64_t index) {
    return inputs.initial_state == nullptr ? nullptr : inputs.initial_state + index * shape.key_dim * shape.value_dim;
}

/// Of the call's o and of its gradient.
template <class Call>
HeadRows output_rows(const Call& call, int64_t index) {
    const GatedDeltaRuleShape& shape = call.shape;
    return rows_of(place_of(shape, call.inputs, index), call.options.element_type, shape.value_dim,
                   shape.heads * shape.value_dim);
}

size_t no_scratch(const GatedDeltaRuleShape&) {
    return 0;
}

void forward(const ForwardCall& call, int64_t index, std::byte*) {
    const auto sequence =
        sequence_of(call.shape, call.options, call.inputs, initial_state(call.shape, call.inputs, index), index);
    const auto result = gated_delta_rule_reference(sequence);
    scatter(result.o, output_rows(call, index), call.outputs.o);
    if (call.outputs.final_state != nullptr) {
        const auto size = static_cast<int64_t>(result.final_state.size());
        std::copy_n(result.final_state.begin(), size, call.outputs.final_state + index * size);
    }
}

void backward(const BackwardCall& call, int64_t index, std::byte*) {
    const auto& shape = call.shape;
    const HeadPlace place = place_of(shape, call.inputs, index);
    const auto sequence =
        sequence_of(shape, call.options, call.inputs, initial_state(shape, call.inputs, index), index);
    const auto size = static_cast<int64_t>(sequence.initial_state.size());
    std::vector<float> final_gradient(size, 0.0F);
    if (call.final_state_gradient != nullptr) {
        std::copy_n(call.final_state_gradient + index * size, size, final_gradient.begin());
    }
    const auto gradients = gated_delta_rule_reference_backward(
        sequence, gather(call.output_gradient, output_rows(call, index)), final_gradient);
    const auto write = [&](const std::vector<float>& values, const Rows& view, int64_t width) {
        scatter(values, rows_of(place, call.options.element_type, width, view.stride), view.data);
    };
    write(gradients.q, call.gradients.q, shape.key_dim);
    write(gradients.k, call.gradients.k, shape.key_dim);
    write(gradients.v, call.gradients.v, shape.value_dim);
    write(gradients.a, call.gradients.a, 1);
    write(gradients.b, call.gradients.b, 1);
    call.A_log_sums[index] = gradients.A_log;
    call.dt_bias_sums[index] = gradients.dt_bias;
    if (call.gradients.initial_state != nullptr) {
        std::copy_n(gradients.initial_state.begin(), size, call.gradients.initial_state + index * size);
    }
}

void decode(const DecodeCall& call, int64_t index, std::byte*) {
    const int64_t heads = call.shape.heads, slot = call.slot(index / heads);
    if (slot < 0) return;
    const int64_t size = call.shape.key_dim * call.shape.value_dim;
    float* state = call.state + (slot * heads + index % heads) * size;
    const auto sequence = sequence_of(call.shape, call.options, call.inputs, state, index);
    const auto result = gated_delta_rule_reference(sequence);
    scatter(result.o, output_rows(call, index), call.o);
    std::copy_n(result.final_state.begin(), size, state);
}

}  // namespace

namespace portable {

extern const ChunkKernels chunk_kernels;
const ChunkKernels chunk_kernels{0, &no_scratch, &forward, &backward, &decode};

}  // namespace portable
}  // namespace amalgam::kernels
