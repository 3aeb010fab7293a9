// SPDX-License-Identifier: Apache-2.0
// Internal to the gated delta rule: the kernels' arguments for one fused projection, and what a forward pass keeps for
// its backward pass on either device.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "mixers/gated_delta_net/gated_delta_rule.h"
#include "operations/gated_norm_call.h"

namespace amalgam {

/// First columns of the parts of the fused projection.
struct GatedDeltaColumns {
    int64_t q, k, v, gate, a, b;
    explicit GatedDeltaColumns(const GatedDeltaShape& s)
        : q(0), k(s.width()), v(2 * s.width()), gate(3 * s.width()), a((s.gate ? 4 : 3) * s.width()), b(a + s.heads) {}
};

struct GatedDeltaCall {
    kernels::GatedDeltaRuleShape shape;
    kernels::GatedDeltaRuleOptions options;
    kernels::GatedDeltaRuleInputs inputs;

    /// `starts`: where documents begin (mixers/documents.h); undefined: every sequence is one.
    GatedDeltaCall(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                   const GatedDeltaShape& s, const at::Tensor& starts = {}) {
        const GatedDeltaColumns column(s);
        shape = {projected.size(0), projected.size(1), s.heads, s.head_dim, s.head_dim};
        if (starts.defined()) {
            shape.time *= shape.batch;
            shape.batch = 1;
            shape.packed = starts.size(0) - 1;
        }
        options.element_type = element_type(projected);
        options.silu = s.activation;
        options.threads = kernel_threads();
        auto part = [&](int64_t first) { return kernels::ConstRows{at_column(projected, first), projected.size(2)}; };
        inputs = {part(column.q),
                  part(column.k),
                  part(column.v),
                  part(column.a),
                  part(column.b),
                  a_log.const_data_ptr<float>(),
                  dt_bias.const_data_ptr<float>(),
                  nullptr,
                  starts.defined() ? starts.const_data_ptr<int64_t>() : nullptr};
    }

    /// Where the gradients of the inputs go: the columns of `d_projected` of the same names.
    static kernels::GatedDeltaRuleGradients gradients(const at::Tensor& d_projected, const at::Tensor& d_a_log,
                                                      const at::Tensor& d_dt_bias, const GatedDeltaShape& s) {
        const GatedDeltaColumns column(s);
        auto part = [&](int64_t first) { return kernels::Rows{at_column(d_projected, first), d_projected.size(2)}; };
        return {part(column.q),
                part(column.k),
                part(column.v),
                part(column.a),
                part(column.b),
                d_a_log.data_ptr<float>(),
                d_dt_bias.data_ptr<float>(),
                nullptr};
    }
};

inline GatedNormShape norm_shape(const GatedDeltaShape& s) {
    return {s.heads, s.head_dim, s.gate ? GatedDeltaColumns(s).gate : -1};
}

/// What the backward pass of the mixing reads.
struct GatedDeltaSaved {
    at::Tensor projected, a_log, dt_bias, norm, o, rstd, workspace;
    GatedDeltaShape shape;   // norm_eps is in rstd already and does not come back
    at::Tensor before = {};  // the states that entered; undefined: zeros
    at::Tensor starts = {};  // as GatedDeltaCall has it

    void keep_in(torch::autograd::AutogradContext* ctx) const {
        ctx->save_for_backward({projected, a_log, dt_bias, norm, o, rstd, workspace, before, starts});
        ctx->saved_data["heads"] = shape.heads;
        ctx->saved_data["head_dim"] = shape.head_dim;
        ctx->saved_data["gate"] = shape.gate;
        ctx->saved_data["activation"] = shape.activation;
    }

    static GatedDeltaSaved kept_in(torch::autograd::AutogradContext* ctx) {
        const auto saved = ctx->get_saved_variables();
        return {saved[0],
                saved[1],
                saved[2],
                saved[3],
                saved[4],
                saved[5],
                saved[6],
                {ctx->saved_data["heads"].toInt(), ctx->saved_data["head_dim"].toInt(),
                 ctx->saved_data["gate"].toBool(), ctx->saved_data["activation"].toBool(), 0.0},
                saved[7],
                saved[8]};
    }
};

}  // namespace amalgam
