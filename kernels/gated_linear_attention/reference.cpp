// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_linear_attention/reference.h"

#include <algorithm>
#include <cmath>

namespace amalgam::kernels {
namespace {

using Sequence = GatedLinearAttentionSequence;

double decay(const Sequence& in, int64_t t, int64_t channel) {
    const double x = in.gate[t * in.key_dim + channel];
    const double log_sigmoid = std::min(x, 0.0) - std::log1p(std::exp(-std::abs(x)));
    return std::exp(log_sigmoid / in.gate_logit_normalizer);
}

/// The state after token t from the one before it.
void update_state(const Sequence& in, int64_t t, std::vector<double>& state) {
    for (int64_t i = 0; i < in.key_dim; ++i) {
        for (int64_t j = 0; j < in.value_dim; ++j) {
            double& S = state[i * in.value_dim + j];
            S = decay(in, t, i) * S + in.k[t * in.key_dim + i] * in.v[t * in.value_dim + j];
        }
    }
}

}  // namespace

GatedLinearAttentionResult gated_linear_attention_reference(const Sequence& in) {
    GatedLinearAttentionResult result;
    result.o.assign(in.time * in.value_dim, 0);
    result.final_state = in.initial_state;
    for (int64_t t = 0; t < in.time; ++t) {
        update_state(in, t, result.final_state);
        for (int64_t i = 0; i < in.key_dim; ++i) {
            for (int64_t j = 0; j < in.value_dim; ++j) {
                result.o[t * in.value_dim + j] +=
                    in.scale * in.q[t * in.key_dim + i] * result.final_state[i * in.value_dim + j];
            }
        }
    }
    return result;
}

GatedLinearAttentionSequenceGradients gated_linear_attention_reference_backward(
    const Sequence& in, const std::vector<double>& o_gradient, const std::vector<double>& final_state_gradient) {
    GatedLinearAttentionSequenceGradients out;
    out.q.assign(in.q.size(), 0);
    out.k.assign(in.k.size(), 0);
    out.v.assign(in.v.size(), 0);
    out.gate.assign(in.gate.size(), 0);
    std::vector<std::vector<double>> states{in.initial_state};  // before each token
    for (int64_t t = 0; t < in.time; ++t) {
        states.push_back(states.back());
        update_state(in, t, states.back());
    }
    std::vector<double>& dS = out.initial_state;
    dS = final_state_gradient;
    for (int64_t t = in.time - 1; t >= 0; --t) {
        const std::vector<double>&before = states[t], &after = states[t + 1];
        for (int64_t i = 0; i < in.key_dim; ++i) {
            const int64_t at = t * in.key_dim + i;
            const double factor = decay(in, t, i);
            double d_factor = 0;
            for (int64_t j = 0; j < in.value_dim; ++j) {
                const double d_o = o_gradient[t * in.value_dim + j];
                double& d_state = dS[i * in.value_dim + j];
                out.q[at] += in.scale * after[i * in.value_dim + j] * d_o;
                d_state += in.scale * in.q[at] * d_o;
                out.k[at] += d_state * in.v[t * in.value_dim + j];
                out.v[t * in.value_dim + j] += d_state * in.k[at];
                d_factor += d_state * before[i * in.value_dim + j];
                d_state *= factor;
            }
            // of log(sigmoid(x)): sigmoid(-x)
            out.gate[at] = d_factor * factor / (1 + std::exp(in.gate[at])) / in.gate_logit_normalizer;
        }
    }
    return out;
}

}  // namespace amalgam::kernels
