// SPDX-License-Identifier: Apache-2.0
// The recurrence of gated_linear_attention.h with vectors along the value dimension: a head's state stays in the first
// cache, and a token costs three operations on each of its elements, seven in the backward pass.
#include <omp.h>

#include <initializer_list>
#include <type_traits>

#include "kernels/elementwise/elements.h"
#include "kernels/elementwise/exponential.h"
#include "kernels/gated_linear_attention/gated_linear_attention.h"
#include "kernels/isa/row_of.h"

namespace amalgam::kernels::AMALGAM_ISA {
namespace {

/// The backward pass keeps the states of so many tokens at a time, and the state at the start of each such segment.
constexpr std::int64_t segment_tokens = 32;

/// log(sigmoid(x)) = min(x, 0) - log(1 + u) with u = e^-|x|, and log(1 + u) = 2 atanh(u / (2 + u)), the series cut at
/// z^15 for z <= 1/3.
Vector log_sigmoid(Vector x) {
    const Vector u = accurate_exponential(min(x, zero() - x));
    const Vector z = u / (u + broadcast(2.0F)), z2 = z * z;
    Vector p = broadcast(1.0F / 15.0F);
    for (float divisor : {13.0F, 11.0F, 9.0F, 7.0F, 5.0F, 3.0F, 1.0F}) p = fma(p, z2, broadcast(1.0F / divisor));
    return min(x, zero()) - (z + z) * p;
}

/// What does not change over the tokens of a sequence and head.
template <class T>
struct Head {
    const GatedLinearAttentionShape& shape;
    const GatedLinearAttentionInputs& inputs;
    float scale, gate_factor;
    std::int64_t first_token, head, key_dim, value_dim;

    Head(const GatedLinearAttentionShape& s, const GatedLinearAttentionOptions& options,
         const GatedLinearAttentionInputs& in, std::int64_t chain)
        : shape(s),
          inputs(in),
          scale(options.scale == 0.0F ? 1.0F / __builtin_sqrtf(static_cast<float>(s.key_dim)) : options.scale),
          gate_factor(1.0F / options.gate_logit_normalizer),
          first_token(chain / s.heads * s.time),
          head(chain % s.heads),
          key_dim(s.key_dim),
          value_dim(s.value_dim) {}

    std::int64_t state_size() const { return key_dim * value_dim; }
    const T* row(const ConstRows& rows, std::int64_t t, std::int64_t dim) const {
        return row_of<T>(rows, first_token + t, head * dim);
    }
    T* row(const Rows& rows, std::int64_t t, std::int64_t dim) const {
        return row_of<T>(rows, first_token + t, head * dim);
    }
    /// Of o and its gradient, which are contiguous.
    std::int64_t output_offset(std::int64_t t) const { return ((first_token + t) * shape.heads + head) * value_dim; }
};

/// One token in fp32: q times scale, k, v, and the decays exp(g).
struct Token {
    float *q, *k, *v, *decay;
    static std::int64_t size(const GatedLinearAttentionShape& s) { return 3 * s.key_dim + s.value_dim; }
    Token(float* memory, const GatedLinearAttentionShape& s)
        : q(memory), k(q + s.key_dim), v(k + s.key_dim), decay(v + s.value_dim) {}

    template <class T>
    void read(const Head<T>& h, std::int64_t t) {
        const T *q_row = h.row(h.inputs.q, t, h.key_dim), *k_row = h.row(h.inputs.k, t, h.key_dim);
        const T *v_row = h.row(h.inputs.v, t, h.value_dim), *gates = h.row(h.inputs.gate, t, h.key_dim);
        for_each_vector(h.key_dim, [&](std::int64_t i, auto part) {
            store(q + i, load(q_row + i, part) * broadcast(h.scale), part);
            store(k + i, load(k_row + i, part), part);
            store(decay + i, accurate_exponential(log_sigmoid(load(gates + i, part)) * broadcast(h.gate_factor)), part);
        });
        for_each_vector(h.value_dim, [&](std::int64_t j, auto part) { store(v + j, load(v_row + j, part), part); });
    }
};

/// after = diag(decay) before + k v^T; the two may be the same memory. Each(j, part, o): o = after^T q.
template <class Each>
void advance(const float* before, float* after, const Token& token, std::int64_t key_dim, std::int64_t value_dim,
             Each each) {
    for_each_vector(value_dim, [&](std::int64_t j, auto part) {
        const Vector v = load(token.v + j, part);
        Vector sums[4] = {zero(), zero(), zero(), zero()};  // apart, so that additions need not wait for each other
        const auto step = [&](std::int64_t i, Vector& sum) {
            const std::int64_t at = i * value_dim + j;
            const Vector S = fma(broadcast(token.decay[i]), load(before + at, part), broadcast(token.k[i]) * v);
            store(after + at, S, part);
            sum = fma(broadcast(token.q[i]), S, sum);
        };
        std::int64_t i = 0;
        for (; i + 4 <= key_dim; i += 4) {
#pragma GCC unroll 4
            for (int n = 0; n < 4; ++n) step(i + n, sums[n]);
        }
        for (; i < key_dim; ++i) step(i, sums[0]);
        each(j, part, (sums[0] + sums[1]) + (sums[2] + sums[3]));
    });
}

void copy_or_clear(float* to, const float* from, std::int64_t count) {
    if (from != nullptr)
        std::memcpy(to, from, sizeof(float) * count);
    else
        std::memset(to, 0, sizeof(float) * count);
}

/// The state `chain` of an array of them, or null.
const float* state_of(const float* states, std::int64_t chain, std::int64_t size) {
    return states != nullptr ? states + chain * size : nullptr;
}

std::int64_t forward_scratch(const GatedLinearAttentionShape& s) {
    return s.key_dim * s.value_dim + Token::size(s);
}

template <class T>
void forward_head(const Head<T>& h, const GatedLinearAttentionOutputs& outputs, std::int64_t chain, float* scratch) {
    float* state = scratch;
    copy_or_clear(state, state_of(h.inputs.initial_state, chain, h.state_size()), h.state_size());
    Token token(scratch + h.state_size(), h.shape);
    for (std::int64_t t = 0; t < h.shape.time; ++t) {
        token.read(h, t);
        T* o = static_cast<T*>(outputs.o) + h.output_offset(t);
        advance(state, state, token, h.key_dim, h.value_dim,
                [&](std::int64_t j, auto part, Vector sum) { store(o + j, sum, part); });
    }
    if (outputs.final_state != nullptr)
        std::memcpy(outputs.final_state + chain * h.state_size(), state, sizeof(float) * h.state_size());
}

/// Gradients of token t, from the states before and after it; turns the gradient of the state after it, dS, into that
/// of the state before.
template <class T>
void backward_token(const Head<T>& h, std::int64_t t, const Token& token, const T* output_gradient, const float* before,
                    const float* after, float* dS, float* d_value, const GatedLinearAttentionGradients& gradients) {
    T *dq = h.row(gradients.q, t, h.key_dim), *dk = h.row(gradients.k, t, h.key_dim);
    T *dv = h.row(gradients.v, t, h.value_dim), *d_gate = h.row(gradients.gate, t, h.key_dim);
    const T* gates = h.row(h.inputs.gate, t, h.key_dim);
    std::memset(d_value, 0, sizeof(float) * h.value_dim);
    for (std::int64_t i = 0; i < h.key_dim; ++i) {
        const Vector q = broadcast(token.q[i]), k = broadcast(token.k[i]), decay = broadcast(token.decay[i]);
        Vector sum_q = zero(), sum_k = zero(), sum_decay = zero();
        for_each_vector(h.value_dim, [&](std::int64_t j, auto part) {
            const std::int64_t at = i * h.value_dim + j;
            const Vector d_o = load(output_gradient + j, part);
            const Vector d_state = fma(q, d_o, load(dS + at, part));
            sum_q = fma(d_o, load(after + at, part), sum_q);
            sum_k = fma(d_state, load(token.v + j, part), sum_k);
            sum_decay = fma(d_state, load(before + at, part), sum_decay);
            store(d_value + j, fma(d_state, k, load(d_value + j, part)), part);
            store(dS + at, d_state * decay, part);
        });
        const Part one{1};
        store(dq + i, broadcast(h.scale * sum(sum_q)), one);
        store(dk + i, broadcast(sum(sum_k)), one);
        // d exp(log(sigmoid(x)) f) = exp(..) f sigmoid(-x)
        const Vector slope = accurate_sigmoid(zero() - load(gates + i, one));
        store(d_gate + i, broadcast(sum(sum_decay) * h.gate_factor) * decay * slope, one);
    }
    for_each_vector(h.value_dim, [&](std::int64_t j, auto part) { store(dv + j, load(d_value + j, part), part); });
}

std::int64_t segments_of(const GatedLinearAttentionShape& s) {
    return (s.time + segment_tokens - 1) / segment_tokens;
}

std::int64_t backward_scratch(const GatedLinearAttentionShape& s) {
    return (segments_of(s) + segment_tokens + 2) * s.key_dim * s.value_dim + segment_tokens * Token::size(s) +
           s.value_dim;
}

template <class T>
void backward_head(const Head<T>& h, const T* output_gradient, const float* final_state_gradient,
                   const GatedLinearAttentionGradients& gradients, std::int64_t chain, float* scratch) {
    const std::int64_t size = h.state_size(), segments = segments_of(h.shape), token_size = Token::size(h.shape);
    const std::size_t bytes = sizeof(float) * size;
    float* starts = scratch;                                // [segments] states
    float* states = starts + segments * size;               // [segment_tokens + 1] states
    float* dS = states + (segment_tokens + 1) * size;       // a state
    float* tokens = dS + size;                              // [segment_tokens] tokens
    float* d_value = tokens + segment_tokens * token_size;  // [value_dim]
    const auto nothing = [](std::int64_t, auto, Vector) {};
    const auto token_at = [&](std::int64_t t) { return Token(tokens + t % segment_tokens * token_size, h.shape); };

    copy_or_clear(states, state_of(h.inputs.initial_state, chain, size), size);
    for (std::int64_t segment = 0; segment < segments; ++segment) {
        std::memcpy(starts + segment * size, states, bytes);
        if (segment + 1 == segments) break;
        for (std::int64_t t = segment * segment_tokens; t < (segment + 1) * segment_tokens; ++t) {
            Token token = token_at(t);
            token.read(h, t);
            advance(states, states, token, h.key_dim, h.value_dim, nothing);
        }
    }

    copy_or_clear(dS, state_of(final_state_gradient, chain, size), size);
    for (std::int64_t segment = segments - 1; segment >= 0; --segment) {
        const std::int64_t first = segment * segment_tokens;
        const std::int64_t end = first + segment_tokens < h.shape.time ? first + segment_tokens : h.shape.time;
        std::memcpy(states, starts + segment * size, bytes);
        for (std::int64_t t = first; t < end; ++t) {
            float* before = states + (t - first) * size;
            Token token = token_at(t);
            token.read(h, t);
            advance(before, before + size, token, h.key_dim, h.value_dim, nothing);
        }
        for (std::int64_t t = end - 1; t >= first; --t) {
            const float* before = states + (t - first) * size;
            backward_token(h, t, token_at(t), output_gradient + h.output_offset(t), before, before + size, dS, d_value,
                           gradients);
        }
    }
    if (gradients.initial_state != nullptr) std::memcpy(gradients.initial_state + chain * size, dS, bytes);
}

}  // namespace

void gated_linear_attention_forward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                    const GatedLinearAttentionInputs& inputs,
                                    const GatedLinearAttentionOutputs& outputs, int threads) {
    with_element_type(options.element_type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        const std::int64_t size = forward_scratch(shape);
        const Scratch<float> scratch(threads * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (std::int64_t chain = 0; chain < shape.batch * shape.heads; ++chain)
            forward_head(Head<T>(shape, options, inputs, chain), outputs, chain,
                         scratch.get() + omp_get_thread_num() * size);
    });
}

void gated_linear_attention_decode(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                   const GatedLinearAttentionInputs& inputs, float* state, void* o, int threads) {
    with_element_type(options.element_type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        const std::int64_t size = Token::size(shape);
        const Scratch<float> scratch(threads * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (std::int64_t chain = 0; chain < shape.batch * shape.heads; ++chain) {
            const std::int64_t row = chain / shape.heads, slot = inputs.slot != nullptr ? inputs.slot[row] : row;
            if (slot < 0) continue;
            const Head<T> head(shape, options, inputs, chain);
            Token token(scratch.get() + omp_get_thread_num() * size, shape);
            token.read(head, 0);
            float* of_head = state + (slot * shape.heads + head.head) * head.state_size();
            T* out = static_cast<T*>(o) + head.output_offset(0);
            advance(of_head, of_head, token, head.key_dim, head.value_dim,
                    [&](std::int64_t j, auto part, Vector sum) { store(out + j, sum, part); });
        }
    });
}

void gated_linear_attention_backward(const GatedLinearAttentionShape& shape, const GatedLinearAttentionOptions& options,
                                     const GatedLinearAttentionInputs& inputs, const void* output_gradient,
                                     const float* final_state_gradient, const GatedLinearAttentionGradients& gradients,
                                     int threads) {
    with_element_type(options.element_type, [&](auto* element) {
        using T = std::remove_pointer_t<decltype(element)>;
        const std::int64_t size = backward_scratch(shape);
        const Scratch<float> scratch(threads * size);
#pragma omp parallel for num_threads(threads) schedule(dynamic)
        for (std::int64_t chain = 0; chain < shape.batch * shape.heads; ++chain)
            backward_head(Head<T>(shape, options, inputs, chain), static_cast<const T*>(output_gradient),
                          final_state_gradient, gradients, chain, scratch.get() + omp_get_thread_num() * size);
    });
}

}  // namespace amalgam::kernels::AMALGAM_ISA
