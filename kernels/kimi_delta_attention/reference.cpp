// SPDX-License-Identifier: Apache-2.0
#include "kernels/kimi_delta_attention/reference.h"

#include <algorithm>
#include <cmath>

#include "kernels/gated_delta_rule/reference_rows.h"

namespace amalgam::kernels {
namespace {

using reference::activate;
using reference::activate_backward;
using reference::dot;
using reference::sigmoid;
using reference::softplus;

constexpr int64_t segment_tokens = 64;

/// Everything of token t that the recurrence uses.
template <class Real>
struct Token {
    Token(const KimiDeltaAttentionSequence<Real>& in, int64_t t)
        : q(activate(&in.q[t * in.key_dim], in.key_dim, in.silu, in.l2_normalize)),
          k(activate(&in.k[t * in.key_dim], in.key_dim, in.silu, in.l2_normalize)),
          v(activate(&in.v[t * in.value_dim], in.value_dim, in.silu, false)),
          beta(sigmoid(in.b[t])) {
        const Real rate = std::exp(in.A_log);
        for (int64_t i = 0; i < in.key_dim; ++i) {
            const Real z = in.a[t * in.key_dim + i] + in.dt_bias[i];
            if (in.lower_bound == 0) {
                g.push_back(-rate * softplus(z));
                by_a.push_back(-rate * sigmoid(z));
                by_A_log.push_back(g.back());
            } else {
                const Real y = sigmoid(rate * z);
                g.push_back(in.lower_bound * y);
                by_a.push_back(in.lower_bound * y * (1 - y) * rate);
                by_A_log.push_back(by_a.back() * z);
            }
        }
    }

    Real decay(size_t channel) const { return std::exp(g[channel]); }

    std::vector<Real> q, k, v;
    Real beta;
    std::vector<Real> g, by_a, by_A_log;  // log decays, and their derivatives by a and by A_log
};

/// S <- diag(e^g) S; r = beta (v - S^T k); S <- S + k r^T. Returns (v - S^T k) with the decayed S.
template <class Real>
std::vector<Real> update_state(const Token<Real>& token, std::vector<Real>& state) {
    const size_t value_dim = token.v.size();
    std::vector<Real> error = token.v;
    for (size_t i = 0; i < token.k.size(); ++i) {
        const Real decay = token.decay(i);
        for (size_t j = 0; j < value_dim; ++j) {
            state[i * value_dim + j] *= decay;
            error[j] -= state[i * value_dim + j] * token.k[i];
        }
    }
    for (size_t i = 0; i < token.k.size(); ++i) {
        for (size_t j = 0; j < value_dim; ++j) state[i * value_dim + j] += token.k[i] * token.beta * error[j];
    }
    return error;
}

}  // namespace

template <class Real>
GatedDeltaRuleResult<Real> kimi_delta_attention_reference(const KimiDeltaAttentionSequence<Real>& in) {
    GatedDeltaRuleResult<Real> result;
    result.o.assign(in.time * in.value_dim, 0);
    result.final_state = in.initial_state;
    std::vector<Real>& state = result.final_state;
    for (int64_t t = 0; t < in.time; ++t) {
        const Token<Real> token(in, t);
        update_state(token, state);
        for (int64_t i = 0; i < in.key_dim; ++i) {
            for (int64_t j = 0; j < in.value_dim; ++j) {
                result.o[t * in.value_dim + j] += in.scale * token.q[i] * state[i * in.value_dim + j];
            }
        }
    }
    return result;
}

template <class Real>
KimiDeltaAttentionSequenceGradients<Real> kimi_delta_attention_reference_backward(
    const KimiDeltaAttentionSequence<Real>& in, const std::vector<Real>& o_gradient,
    const std::vector<Real>& final_state_gradient) {
    const int64_t dk = in.key_dim;
    const int64_t dv = in.value_dim;
    KimiDeltaAttentionSequenceGradients<Real> out;
    out.q.resize(in.q.size());
    out.k.resize(in.k.size());
    out.v.resize(in.v.size());
    out.a.resize(in.a.size());
    out.b.resize(in.b.size());
    out.dt_bias.assign(in.dt_bias.size(), 0);

    // The states at the starts of segments; inside a segment they are computed again when their turn comes.
    std::vector<std::vector<Real>> segment_states;
    std::vector<Real> state = in.initial_state;
    for (int64_t t = 0; t < in.time; ++t) {
        if (t % segment_tokens == 0) segment_states.push_back(state);
        update_state(Token<Real>(in, t), state);
    }

    std::vector<Real>& dS = out.initial_state;
    dS = final_state_gradient;
    for (auto segment = static_cast<int64_t>(segment_states.size()) - 1; segment >= 0; --segment) {
        const int64_t first = segment * segment_tokens, last = std::min(in.time, first + segment_tokens);
        std::vector<std::vector<Real>> states{segment_states[segment]};  // before each token
        std::vector<std::vector<Real>> errors;
        for (int64_t t = first; t < last; ++t) {
            states.push_back(states.back());
            errors.push_back(update_state(Token<Real>(in, t), states.back()));
        }
        for (int64_t t = last - 1; t >= first; --t) {
            const Token<Real> token(in, t);
            const std::vector<Real>&before = states[t - first], &after = states[t - first + 1];
            const std::vector<Real>& error = errors[t - first];
            const Real* d_o = &o_gradient[t * dv];

            // o = scale S^T q
            std::vector<Real> dq(dk), dk_row(dk), dr(dv), d_error(dv);
            for (int64_t i = 0; i < dk; ++i) {
                dq[i] = in.scale * dot(&after[i * dv], d_o, dv);
                for (int64_t j = 0; j < dv; ++j) dS[i * dv + j] += in.scale * token.q[i] * d_o[j];
            }
            // S = D + k r^T with r = beta error, error = v - D^T k, D = diag(e^g) S_before
            for (int64_t i = 0; i < dk; ++i) {
                dk_row[i] = token.beta * dot(&dS[i * dv], error.data(), dv);
                for (int64_t j = 0; j < dv; ++j) dr[j] += dS[i * dv + j] * token.k[i];
            }
            for (int64_t j = 0; j < dv; ++j) d_error[j] = token.beta * dr[j];
            for (int64_t i = 0; i < dk; ++i) {
                const Real decay = token.decay(i);
                dk_row[i] -= decay * dot(&before[i * dv], d_error.data(), dv);
                for (int64_t j = 0; j < dv; ++j) dS[i * dv + j] -= token.k[i] * d_error[j];
                const Real dg = decay * dot(&before[i * dv], &dS[i * dv], dv);
                for (int64_t j = 0; j < dv; ++j) dS[i * dv + j] *= decay;
                out.a[t * dk + i] = dg * token.by_a[i];
                out.dt_bias[i] += dg * token.by_a[i];
                out.A_log += dg * token.by_A_log[i];
            }
            out.b[t] = dot(dr.data(), error.data(), dv) * token.beta * (1 - token.beta);
            activate_backward(&in.q[t * dk], dk, in.silu, in.l2_normalize, dq, &out.q[t * dk]);
            activate_backward(&in.k[t * dk], dk, in.silu, in.l2_normalize, dk_row, &out.k[t * dk]);
            activate_backward(&in.v[t * dv], dv, in.silu, false, d_error, &out.v[t * dv]);
        }
    }
    return out;
}

template GatedDeltaRuleResult<float> kimi_delta_attention_reference(const KimiDeltaAttentionSequence<float>&);
template GatedDeltaRuleResult<double> kimi_delta_attention_reference(const KimiDeltaAttentionSequence<double>&);
template KimiDeltaAttentionSequenceGradients<float> kimi_delta_attention_reference_backward(
    const KimiDeltaAttentionSequence<float>&, const std::vector<float>&, const std::vector<float>&);
template KimiDeltaAttentionSequenceGradients<double> kimi_delta_attention_reference_backward(
    const KimiDeltaAttentionSequence<double>&, const std::vector<double>&, const std::vector<double>&);

}  // namespace amalgam::kernels
