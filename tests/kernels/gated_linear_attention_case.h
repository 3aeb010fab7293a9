// SPDX-License-Identifier: Apache-2.0
#pragma once

// A random problem for gated linear attention in the layout of its callers (q, k and v as views into one fused buffer,
// the gates in another), by the CPU's kernels and by the fp64 reference.

#include <random>

#include "activations.h"
#include "kernels/gated_linear_attention/gated_linear_attention.h"
#include "kernels/gated_linear_attention/reference.h"

namespace amalgam::kernels {

struct GatedLinearAttentionCase {
    GatedLinearAttentionShape shape;
    GatedLinearAttentionOptions options;
    bool with_states = true;  ///< initial state given, final state wanted and its gradient given
    float gate_shift = 0;     ///< added to raw gates
    float gate_spread = 1;    ///< standard deviation of raw gates
    unsigned seed = 1;

    int64_t tokens() const { return shape.batch * shape.time; }
    int64_t width() const { return shape.heads * shape.key_dim; }
    int64_t value_width() const { return shape.heads * shape.value_dim; }
    /// Of the fused buffer: q | k | v | what belongs to others.
    int64_t stride() const { return 2 * width() + value_width() + 8; }

    void fill() {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const auto draw = [&](Activations& out, int64_t size, float shift, float spread) {
            out = Activations(options.element_type, size);
            for (int64_t i = 0; i < size; ++i) out.set(i, shift + spread * normal(random));
        };
        draw(fused, tokens() * stride(), 0, 1);
        draw(gate, tokens() * width(), gate_shift, gate_spread);
        draw(output_gradient, tokens() * value_width(), 0, 1);
        const int64_t states = shape.batch * shape.heads * shape.key_dim * shape.value_dim;
        initial_state.assign(states, 0);
        final_state_gradient.assign(states, 0);
        if (!with_states) return;
        for (float& x : initial_state) x = normal(random);
        for (float& x : final_state_gradient) x = normal(random);
    }

    /// o, final_state and the gradients, each flattened over sequences, heads and the sequence's own layout.
    NamedValues run_reference() const {
        NamedValues out;
        const auto append = [&](const std::string& name, const std::vector<double>& values) {
            out[name].insert(out[name].end(), values.begin(), values.end());
        };
        const int64_t dim = shape.key_dim, size = dim * shape.value_dim;
        for (int64_t chain = 0; chain < shape.batch * shape.heads; ++chain) {
            const int64_t first = chain / shape.heads * shape.time, head = chain % shape.heads;
            const auto rows = [&](const Activations& from, int64_t from_stride, int64_t column, int64_t columns) {
                std::vector<double> x;
                for (int64_t t = first; t < first + shape.time; ++t)
                    for (int64_t i = 0; i < columns; ++i)
                        x.push_back(from.get(t * from_stride + column + head * columns + i));
                return x;
            };
            const auto state = [&](const std::vector<float>& from) {
                return std::vector<double>(from.begin() + chain * size, from.begin() + (chain + 1) * size);
            };
            GatedLinearAttentionSequence s;
            s.time = shape.time;
            s.key_dim = dim;
            s.value_dim = shape.value_dim;
            s.scale = options.scale == 0 ? 1 / std::sqrt(double(dim)) : options.scale;
            s.gate_logit_normalizer = options.gate_logit_normalizer;
            s.q = rows(fused, stride(), 0, dim);
            s.k = rows(fused, stride(), width(), dim);
            s.v = rows(fused, stride(), 2 * width(), shape.value_dim);
            s.gate = rows(gate, width(), 0, dim);
            s.initial_state = state(initial_state);
            const auto result = gated_linear_attention_reference(s);
            const auto gradients = gated_linear_attention_reference_backward(
                s, rows(output_gradient, value_width(), 0, shape.value_dim), state(final_state_gradient));
            append("o", result.o);
            append("final_state", result.final_state);
            append("dq", gradients.q);
            append("dk", gradients.k);
            append("dv", gradients.v);
            append("dgate", gradients.gate);
            append("dinitial_state", gradients.initial_state);
        }
        return out;
    }

    NamedValues run(int threads) {
        Activations o(options.element_type, tokens() * value_width());
        Activations gradient(options.element_type, tokens() * stride());
        Activations d_gate(options.element_type, tokens() * width());
        std::vector<float> final_state(initial_state.size()), d_initial(initial_state.size());
        const GatedLinearAttentionInputs in{{fused.at(0), stride()},
                                            {fused.at(width()), stride()},
                                            {fused.at(2 * width()), stride()},
                                            {gate.at(0), width()},
                                            with_states ? initial_state.data() : nullptr};
        gated_linear_attention_forward(shape, options, in, {o.at(0), with_states ? final_state.data() : nullptr},
                                       threads);
        gated_linear_attention_backward(shape, options, in, output_gradient.at(0),
                                        with_states ? final_state_gradient.data() : nullptr,
                                        {{gradient.at(0), stride()},
                                         {gradient.at(width()), stride()},
                                         {gradient.at(2 * width()), stride()},
                                         {d_gate.at(0), width()},
                                         d_initial.data()},
                                        threads);
        NamedValues out;
        collect(
            out, "o", [&](int64_t i) { return o.get(i); }, value_width(), 0, shape.value_dim);
        const auto gradients = [&](int64_t i) { return gradient.get(i); };
        collect(out, "dq", gradients, stride(), 0, shape.key_dim);
        collect(out, "dk", gradients, stride(), width(), shape.key_dim);
        collect(out, "dv", gradients, stride(), 2 * width(), shape.value_dim);
        collect(
            out, "dgate", [&](int64_t i) { return d_gate.get(i); }, width(), 0, shape.key_dim);
        out["dinitial_state"].assign(d_initial.begin(), d_initial.end());
        if (with_states) out["final_state"].assign(final_state.begin(), final_state.end());
        return out;
    }

    /// Appends values of tokens in rows of `from_stride`, from `column` on, in the order of run_reference.
    template <class Get>
    void collect(NamedValues& out, const char* name, Get get, int64_t from_stride, int64_t column, int64_t dim) const {
        for (int64_t chain = 0; chain < shape.batch * shape.heads; ++chain)
            for (int64_t t = 0; t < shape.time; ++t)
                for (int64_t i = 0; i < dim; ++i)
                    out[name].push_back(get((chain / shape.heads * shape.time + t) * from_stride + column +
                                            chain % shape.heads * dim + i));
    }

    Activations fused{ElementType::float32, 0}, gate{ElementType::float32, 0};
    Activations output_gradient{ElementType::float32, 0};
    std::vector<float> initial_state, final_state_gradient;
};

}  // namespace amalgam::kernels
