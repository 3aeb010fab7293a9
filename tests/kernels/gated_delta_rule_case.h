// SPDX-License-Identifier: Apache-2.0
#pragma once

// A random problem for the gated delta rule in the layouts of its callers (q, k, v, gates and their gradients as views
// into fused buffers), run by any kernel variant and by the fp64 reference.

#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "activations.h"
#include "kernels/gated_delta_rule/chunk_slots.h"
#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "kernels/gated_delta_rule/reference.h"

namespace amalgam::kernels {

/// Variants with a form of the delta rules of their own: amx_bf16 takes that of avx512_bf16 (kernels/isa/dispatch.h).
inline std::vector<Isa> variants_of_delta_rules() {
    std::vector<Isa> variants = supported_isas();
    std::erase(variants, Isa::amx_bf16);
    return variants;
}

/// What a case asks of its rule; Kimi Delta Attention has another one.
struct GatedDeltaRuleKind {
    using Options = GatedDeltaRuleOptions;
    using Sequence = GatedDeltaRuleSequence<double>;
    static constexpr auto workspace_bytes = gated_delta_rule_workspace_bytes;
    static constexpr auto forward = gated_delta_rule_forward;
    static constexpr auto backward = gated_delta_rule_backward;
    static constexpr auto decode = gated_delta_rule_decode;
    static constexpr auto reference = gated_delta_rule_reference<double>;
    static constexpr auto reference_backward = gated_delta_rule_reference_backward<double>;

    /// Raw gates of a token and head.
    static int64_t gates(const GatedDeltaRuleShape&) { return 1; }
    static void set_gate(Sequence& sequence, const Options&, const float* dt_bias) { sequence.dt_bias = *dt_bias; }
    static std::vector<double> dt_bias(const GatedDeltaRuleSequenceGradients<double>& gradients) {
        return {gradients.dt_bias};
    }
};

template <class Kind>
struct DeltaRuleCase {
    GatedDeltaRuleShape shape;
    typename Kind::Options options;
    bool with_states = true;    ///< initial state given, final state wanted and its gradient given
    double gate_spread = 1;     ///< standard deviation of raw gates
    double gate_shift = 0;      ///< added to raw gates: large values make the log decays strong
    double largest_decay = 30;  ///< log decays are kept above minus this
    unsigned seed = 1;
    std::vector<int64_t> starts;  ///< of packed sequences; set by pack()

    /// One row that holds sequences of these lengths.
    void pack(const std::vector<int64_t>& lengths) {
        starts = {0};
        for (int64_t length : lengths) starts.push_back(starts.back() + length);
        shape.batch = 1;
        shape.time = starts.back();
        shape.packed = static_cast<int64_t>(lengths.size());
    }
    /// Sequences and heads; `index` below is sequence * heads + head.
    int64_t chains() const { return sequences_of(shape) * shape.heads; }
    int64_t first_token(int64_t index) const {
        const int64_t sequence = index / shape.heads;
        return starts.empty() ? sequence * shape.time : starts[sequence];
    }
    int64_t end_token(int64_t index) const { return first_token(index / shape.heads * shape.heads + shape.heads); }

    int64_t token_width() const { return shape.heads * (2 * shape.key_dim + shape.value_dim + width('a') + 1) + 3; }
    int64_t offset(char part) const {
        const int64_t key = shape.heads * shape.key_dim;
        const int64_t value = shape.heads * shape.value_dim;
        switch (part) {
            case 'q':
                return 0;
            case 'k':
                return key;
            case 'v':
                return 2 * key;
            case 'a':
                return 2 * key + value;
            default:
                return 2 * key + value + shape.heads * width('a');
        }
    }
    int64_t width(char part) const {
        if (part == 'v') return shape.value_dim;
        if (part == 'a') return Kind::gates(shape);
        return part == 'q' || part == 'k' ? shape.key_dim : 1;
    }

    void fill() {
        std::mt19937 random(seed);
        std::normal_distribution<float> normal;
        const int64_t tokens = shape.batch * shape.time;
        fused = Activations(options.element_type, tokens * token_width());
        output_gradient = Activations(options.element_type, tokens * shape.heads * shape.value_dim);
        A_log.resize(shape.heads);
        dt_bias.resize(shape.heads * width('a'));
        for (float& x : A_log) x = 0.5F * normal(random);
        for (float& x : dt_bias) x = 0.5F * normal(random) - 2.0F;
        for (int64_t t = 0; t < tokens; ++t) {
            for (int64_t i = 0; i < token_width(); ++i) fused.set(t * token_width() + i, normal(random));
            for (int64_t i = 0; i < shape.heads * width('a'); ++i) {
                const double raw = gate_spread * normal(random) + gate_shift;
                const double limit = largest_decay * std::exp(-A_log[i / width('a')]) - dt_bias[i];
                fused.set(t * token_width() + offset('a') + i, static_cast<float>(std::min(raw, 0.99 * limit)));
            }
            if (!options.l2_normalize) {  // keys must be contractions for the recurrence to stay bounded
                for (int64_t i = 0; i < shape.heads * shape.key_dim; ++i) {
                    const int64_t at = t * token_width() + offset('k') + i;
                    fused.set(at, fused.get(at) / std::sqrt(static_cast<float>(shape.key_dim)));
                }
            }
        }
        for (int64_t i = 0; i < tokens * shape.heads * shape.value_dim; ++i) output_gradient.set(i, normal(random));
        const int64_t states = chains() * shape.key_dim * shape.value_dim;
        initial_state.assign(states, 0);
        final_state_gradient.assign(states, 0);
        if (with_states) {
            for (float& x : initial_state) x = normal(random);
            for (float& x : final_state_gradient) x = normal(random);
        }
    }

    GatedDeltaRuleInputs inputs() {
        const auto view = [&](char part) { return ConstRows{fused.at(offset(part)), token_width()}; };
        return {view('q'),
                view('k'),
                view('v'),
                view('a'),
                view('b'),
                A_log.data(),
                dt_bias.data(),
                with_states ? initial_state.data() : nullptr,
                starts.empty() ? nullptr : starts.data()};
    }

    typename Kind::Sequence sequence(int64_t index) const {
        typename Kind::Sequence s;
        const int64_t head = index % shape.heads;
        const int64_t first = first_token(index), end = end_token(index);
        s.time = end - first;
        s.key_dim = shape.key_dim;
        s.value_dim = shape.value_dim;
        s.silu = options.silu;
        s.l2_normalize = options.l2_normalize;
        s.scale = options.scale == 0 ? 1 / std::sqrt(static_cast<double>(shape.key_dim)) : options.scale;
        s.A_log = A_log[head];
        Kind::set_gate(s, options, dt_bias.data() + head * width('a'));
        const auto gather = [&](char part, std::vector<double>& out) {
            for (int64_t t = first; t < end; ++t) {
                for (int64_t i = 0; i < width(part); ++i) {
                    out.push_back(fused.get(t * token_width() + offset(part) + head * width(part) + i));
                }
            }
        };
        gather('q', s.q);
        gather('k', s.k);
        gather('v', s.v);
        gather('a', s.a);
        gather('b', s.b);
        const int64_t size = shape.key_dim * shape.value_dim;
        s.initial_state.assign(initial_state.begin() + index * size, initial_state.begin() + (index + 1) * size);
        return s;
    }

    NamedValues run_reference() const {
        NamedValues out;
        const auto append = [&](const std::string& name, const std::vector<double>& values) {
            out[name].insert(out[name].end(), values.begin(), values.end());
        };
        out["dA_log"].assign(shape.heads, 0);
        out["ddt_bias"].assign(dt_bias.size(), 0);
        const int64_t size = shape.key_dim * shape.value_dim;
        for (int64_t index = 0; index < chains(); ++index) {
            const auto s = sequence(index);
            const auto result = Kind::reference(s);
            std::vector<double> d_o;
            for (int64_t token = first_token(index); token < end_token(index); ++token) {
                for (int64_t i = 0; i < shape.value_dim; ++i) {
                    d_o.push_back(
                        output_gradient.get((token * shape.heads + index % shape.heads) * shape.value_dim + i));
                }
            }
            const std::vector<double> d_final(final_state_gradient.begin() + index * size,
                                              final_state_gradient.begin() + (index + 1) * size);
            const auto gradients = Kind::reference_backward(s, d_o, d_final);
            append("o", result.o);
            append("final_state", result.final_state);
            append("dq", gradients.q);
            append("dk", gradients.k);
            append("dv", gradients.v);
            append("da", gradients.a);
            append("db", gradients.b);
            append("dinitial_state", gradients.initial_state);
            out["dA_log"][index % shape.heads] += gradients.A_log;
            const auto d_dt_bias = Kind::dt_bias(gradients);
            for (size_t i = 0; i < d_dt_bias.size(); ++i)
                out["ddt_bias"][index % shape.heads * d_dt_bias.size() + i] += d_dt_bias[i];
        }
        return out;
    }

    NamedValues run(Isa isa, int threads) {
        options.isa = isa;
        options.threads = threads;
        const int64_t tokens = shape.batch * shape.time;
        const int64_t heads = chains();
        const int64_t size = shape.key_dim * shape.value_dim;
        Activations o(options.element_type, tokens * shape.heads * shape.value_dim);
        Activations gradient(options.element_type, tokens * token_width());
        std::vector<float> final_state(heads * size);
        std::vector<float> d_initial(heads * size);
        std::vector<float> d_A_log(shape.heads);
        std::vector<float> d_dt_bias(dt_bias.size());
        std::vector<unsigned char> workspace(Kind::workspace_bytes(shape, options) + 64, 0xFF);
        void* saved = workspace.data();
        size_t space = workspace.size();
        std::align(64, space - 64, saved, space);
        Kind::forward(shape, options, inputs(), {o.at(0), with_states ? final_state.data() : nullptr}, saved);
        const auto view = [&](char part) { return Rows{gradient.at(offset(part)), token_width()}; };
        Kind::backward(shape, options, inputs(), output_gradient.at(0),
                       with_states ? final_state_gradient.data() : nullptr, saved,
                       {view('q'), view('k'), view('v'), view('a'), view('b'), d_A_log.data(), d_dt_bias.data(),
                        d_initial.data()});
        NamedValues out;
        for (int64_t index = 0; index < heads; ++index) {
            const int64_t head = index % shape.heads;
            for (int64_t t = first_token(index); t < end_token(index); ++t) {
                for (int64_t i = 0; i < shape.value_dim; ++i) {
                    out["o"].push_back(o.get((t * shape.heads + head) * shape.value_dim + i));
                }
                for (char part : {'q', 'k', 'v', 'a', 'b'}) {
                    for (int64_t i = 0; i < width(part); ++i) {
                        out[std::string("d") + part].push_back(
                            gradient.get(t * token_width() + offset(part) + head * width(part) + i));
                    }
                }
            }
        }
        if (with_states) out["final_state"].assign(final_state.begin(), final_state.end());
        out["dinitial_state"].assign(d_initial.begin(), d_initial.end());
        out["dA_log"].assign(d_A_log.begin(), d_A_log.end());
        out["ddt_bias"].assign(d_dt_bias.begin(), d_dt_bias.end());
        return out;
    }

    Activations fused{ElementType::float32, 0};
    Activations output_gradient{ElementType::float32, 0};
    std::vector<float> A_log, dt_bias, initial_state, final_state_gradient;
};

using GatedDeltaRuleCase = DeltaRuleCase<GatedDeltaRuleKind>;

}  // namespace amalgam::kernels
