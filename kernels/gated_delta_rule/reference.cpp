// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/reference.h"

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
    Token(const GatedDeltaRuleSequence<Real>& in, int64_t t)
        : q(activate(&in.q[t * in.key_dim], in.key_dim, in.silu, in.l2_normalize)),
          k(activate(&in.k[t * in.key_dim], in.key_dim, in.silu, in.l2_normalize)),
          v(activate(&in.v[t * in.value_dim], in.value_dim, in.silu, false)),
          g(-std::exp(in.A_log) * softplus(in.a[t] + in.dt_bias)),
          beta(sigmoid(in.b[t])) {}
    std::vector<Real> q, k, v;
    Real g, beta;
};

/// S <- e^g S; r = beta (v - S^T k); S <- S + k r^T. Returns (v - S^T k) with the decayed S.
template <class Real>
std::vector<Real> update_state(const Token<Real>& token, std::vector<Real>& state) {
    const size_t value_dim = token.v.size();
    for (Real& value : state) value *= std::exp(token.g);
    std::vector<Real> error = token.v;
    for (size_t i = 0; i < token.k.size(); ++i) {
        for (size_t j = 0; j < value_dim; ++j) error[j] -= state[i * value_dim + j] * token.k[i];
    }
    for (size_t i = 0; i < token.k.size(); ++i) {
        for (size_t j = 0; j < value_dim; ++j) state[i * value_dim + j] += token.k[i] * token.beta * error[j];
    }
    return error;
}

}  // namespace

template <class Real>
GatedDeltaRuleResult<Real> gated_delta_rule_reference(const GatedDeltaRuleSequence<Real>& sequence) {
    GatedDeltaRuleResult<Real> result;
    result.o.assign(sequence.time * sequence.value_dim, 0);
    result.final_state = sequence.initial_state;
    std::vector<Real>& state = result.final_state;
    for (int64_t t = 0; t < sequence.time; ++t) {
        const Token<Real> token(sequence, t);
        update_state(token, state);
        for (int64_t i = 0; i < sequence.key_dim; ++i) {
            for (int64_t j = 0; j < sequence.value_dim; ++j) {
                result.o[t * sequence.value_dim + j] += sequence.scale * token.q[i] * state[i * sequence.value_dim + j];
            }
        }
    }
    return result;
}

template <class Real>
GatedDeltaRuleSequenceGradients<Real> gated_delta_rule_reference_backward(
    const GatedDeltaRuleSequence<Real>& in, const std::vector<Real>& o_gradient,
    const std::vector<Real>& final_state_gradient) {
    const int64_t dk = in.key_dim;
    const int64_t dv = in.value_dim;
    GatedDeltaRuleSequenceGradients<Real> out;
    out.q.resize(in.q.size());
    out.k.resize(in.k.size());
    out.v.resize(in.v.size());
    out.a.resize(in.a.size());
    out.b.resize(in.b.size());

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
        for (int64_t t = first; t < last; ++t) {
            states.push_back(states.back());
            update_state(Token<Real>(in, t), states.back());
        }
        for (int64_t t = last - 1; t >= first; --t) {
            const Token<Real> token(in, t);
            const std::vector<Real>& before = states[t - first];
            const std::vector<Real>& after = states[t - first + 1];
            std::vector<Real> scratch = before;
            const std::vector<Real> error = update_state(token, scratch);
            const Real* d_o = &o_gradient[t * dv];
            const Real decay = std::exp(token.g);

            // o = scale S^T q
            std::vector<Real> dq(dk), dk_row(dk), dr(dv);
            for (int64_t i = 0; i < dk; ++i) {
                dq[i] = in.scale * dot(&after[i * dv], d_o, dv);
                for (int64_t j = 0; j < dv; ++j) dS[i * dv + j] += in.scale * token.q[i] * d_o[j];
            }
            // S = D + k r^T with r = beta error, error = v - D^T k, D = decay S_before
            for (int64_t i = 0; i < dk; ++i) {
                dk_row[i] = token.beta * dot(&dS[i * dv], error.data(), dv);
                for (int64_t j = 0; j < dv; ++j) dr[j] += dS[i * dv + j] * token.k[i];
            }
            std::vector<Real> d_error(dv);
            for (int64_t j = 0; j < dv; ++j) d_error[j] = token.beta * dr[j];
            for (int64_t i = 0; i < dk; ++i) {
                dk_row[i] -= decay * dot(&before[i * dv], d_error.data(), dv);
                for (int64_t j = 0; j < dv; ++j) dS[i * dv + j] -= token.k[i] * d_error[j];
            }
            const Real dg = decay * dot(before.data(), dS.data(), dk * dv);
            for (Real& value : dS) value *= decay;

            out.b[t] = dot(dr.data(), error.data(), dv) * token.beta * (1 - token.beta);
            out.a[t] = -std::exp(in.A_log) * sigmoid(in.a[t] + in.dt_bias) * dg;
            out.dt_bias += out.a[t];
            out.A_log += dg * token.g;
            activate_backward(&in.q[t * dk], dk, in.silu, in.l2_normalize, dq, &out.q[t * dk]);
            activate_backward(&in.k[t * dk], dk, in.silu, in.l2_normalize, dk_row, &out.k[t * dk]);
            activate_backward(&in.v[t * dv], dv, in.silu, false, d_error, &out.v[t * dv]);
        }
    }
    return out;
}

template GatedDeltaRuleResult<float> gated_delta_rule_reference(const GatedDeltaRuleSequence<float>&);
template GatedDeltaRuleResult<double> gated_delta_rule_reference(const GatedDeltaRuleSequence<double>&);
template GatedDeltaRuleSequenceGradients<float> gated_delta_rule_reference_backward(
    const GatedDeltaRuleSequence<float>&, const std::vector<float>&, const std::vector<float>&);
template GatedDeltaRuleSequenceGradients<double> gated_delta_rule_reference_backward(
    const GatedDeltaRuleSequence<double>&, const std::vector<double>&, const std::vector<double>&);

}  // namespace amalgam::kernels
