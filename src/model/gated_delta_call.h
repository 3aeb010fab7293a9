// SPDX-License-Identifier: Apache-2.0
// Internal to the gated delta rule: the kernels' arguments for one fused projection, and what a forward pass keeps for
// its backward pass on either device.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/gated_delta_rule/gated_delta_rule.h"
#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "model/gated_delta_rule.h"
#include "model/kernel_views.h"

namespace amalgam {

/// First columns of the parts of the fused projection.
struct GatedDeltaColumns {
    int64_t q, k, v, gate, a, b;
    explicit GatedDeltaColumns(const GatedDeltaShape& s)
        : q(0), k(s.width()), v(2 * s.width()), gate(3 * s.width()), a((s.gate ? 4 : 3) * s.width()), b(a + s.heads) {}
};

inline void* at_column(const at::Tensor& t, int64_t column) {
    return static_cast<char*>(t.data_ptr()) + column * t.element_size();
}

struct GatedDeltaCall {
    kernels::GatedDeltaRuleShape shape;
    kernels::GatedDeltaRuleOptions options;
    kernels::GatedDeltaRuleInputs inputs;

    GatedDeltaCall(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                   const GatedDeltaShape& s) {
        const GatedDeltaColumns column(s);
        shape = {projected.size(0), projected.size(1), s.heads, s.head_dim, s.head_dim};
        options.element_type = element_type(projected);
        options.silu = s.activation;
        options.threads = kernel_threads();
        auto part = [&](int64_t first) { return kernels::TokenView{at_column(projected, first), projected.size(2)}; };
        inputs = {part(column.q),
                  part(column.k),
                  part(column.v),
                  part(column.a),
                  part(column.b),
                  a_log.const_data_ptr<float>(),
                  dt_bias.const_data_ptr<float>(),
                  nullptr};
    }

    /// Where the gradients of the inputs go: the columns of `d_projected` of the same names.
    static kernels::GatedDeltaRuleGradients gradients(const at::Tensor& d_projected, const at::Tensor& d_a_log,
                                                      const at::Tensor& d_dt_bias, const GatedDeltaShape& s) {
        const GatedDeltaColumns column(s);
        auto part = [&](int64_t first) {
            return kernels::MutableTokenView{at_column(d_projected, first), d_projected.size(2)};
        };
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

/// The output norm and gate of o [batch, time, heads, head_dim], with the gate's columns of `projected`.
inline kernels::GatedRmsNormForward gated_norm_forward(const at::Tensor& o, const at::Tensor& projected,
                                                       const at::Tensor& norm, const at::Tensor& y,
                                                       const at::Tensor& rstd, const GatedDeltaShape& shape) {
    kernels::GatedRmsNormForward call{};
    call.type = element_type(o);
    call.tokens = rstd.size(0);
    call.heads = shape.heads;
    call.width = shape.head_dim;
    call.epsilon = float(shape.norm_eps);
    call.o = const_rows(o, 2);
    if (shape.gate) call.z = {at_column(projected, GatedDeltaColumns(shape).gate), projected.size(2)};
    if (norm.defined()) call.weight = norm.const_data_ptr<float>();
    call.y = rows(y, 1);
    call.rstd = rstd.data_ptr<float>();
    return call;
}

/// Its backward: gradients of o, of the gate (columns of `d_projected`) and, where there is a norm, of its weight.
inline kernels::GatedRmsNormBackward gated_norm_backward(const at::Tensor& dy, const at::Tensor& o,
                                                         const at::Tensor& projected, const at::Tensor& norm,
                                                         const at::Tensor& rstd, const at::Tensor& d_o,
                                                         const at::Tensor& d_projected, const at::Tensor& d_norm,
                                                         const GatedDeltaShape& shape) {
    const int64_t gate = GatedDeltaColumns(shape).gate;
    kernels::GatedRmsNormBackward call{};
    call.type = element_type(o);
    call.tokens = rstd.size(0);
    call.heads = shape.heads;
    call.width = shape.head_dim;
    call.y_gradient = const_rows(dy, 1);
    call.o = const_rows(o, 2);
    call.rstd = rstd.const_data_ptr<float>();
    call.o_gradient = rows(d_o, 2);
    if (shape.gate) {
        call.z = {at_column(projected, gate), projected.size(2)};
        call.z_gradient = {at_column(d_projected, gate), projected.size(2)};
    }
    if (norm.defined()) {
        call.weight = norm.const_data_ptr<float>();
        call.weight_gradient = d_norm.data_ptr<float>();
    }
    return call;
}

/// What the backward pass of the mixing reads.
struct GatedDeltaSaved {
    at::Tensor projected, a_log, dt_bias, norm, o, rstd, workspace;
    GatedDeltaShape shape;  // norm_eps is in rstd already and does not come back

    void keep_in(torch::autograd::AutogradContext* ctx) const {
        ctx->save_for_backward({projected, a_log, dt_bias, norm, o, rstd, workspace});
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
                 ctx->saved_data["gate"].toBool(), ctx->saved_data["activation"].toBool(), 0.0}};
    }
};

}  // namespace amalgam
