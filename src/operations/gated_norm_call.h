// SPDX-License-Identifier: Apache-2.0
// Internal to the linear mixers: the kernels' arguments for the norm and gate of their output.
#pragma once

#include <ATen/core/Tensor.h>

#include "kernels/gated_rms_norm/gated_rms_norm.h"
#include "operations/kernel_views.h"

namespace amalgam {

/// The address of a column of a matrix.
inline void* at_column(const at::Tensor& t, int64_t column) {
    return static_cast<char*>(t.data_ptr()) + column * t.element_size();
}

/// Heads of the output, and where the gate's columns of the fused projection begin; -1: there is no gate.
struct GatedNormShape {
    int64_t heads, head_dim, gate_column;
};

/// y = RMSNorm(o) SiLU(gate): o [batch, time, heads, head_dim], norm fp32 [head_dim] or undefined, `projected` holds
/// the gate, y [batch, time, heads * head_dim]; rstd fp32 [batch * time, heads] is kept for the backward pass.
inline kernels::GatedRmsNormForward gated_norm_forward(const at::Tensor& o, const at::Tensor& projected,
                                                       const at::Tensor& norm, const at::Tensor& y,
                                                       const at::Tensor& rstd, const GatedNormShape& shape,
                                                       double epsilon) {
    kernels::GatedRmsNormForward call{};
    call.type = element_type(o);
    call.tokens = rstd.size(0);
    call.heads = shape.heads;
    call.width = shape.head_dim;
    call.epsilon = float(epsilon);
    call.o = const_rows(o, 2);
    if (shape.gate_column >= 0) call.z = {at_column(projected, shape.gate_column), projected.size(2)};
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
                                                         const GatedNormShape& shape) {
    kernels::GatedRmsNormBackward call{};
    call.type = element_type(o);
    call.tokens = rstd.size(0);
    call.heads = shape.heads;
    call.width = shape.head_dim;
    call.y_gradient = const_rows(dy, 1);
    call.o = const_rows(o, 2);
    call.rstd = rstd.const_data_ptr<float>();
    call.o_gradient = rows(d_o, 2);
    if (shape.gate_column >= 0) {
        call.z = {at_column(projected, shape.gate_column), projected.size(2)};
        call.z_gradient = {at_column(d_projected, shape.gate_column), projected.size(2)};
    }
    if (norm.defined()) {
        call.weight = norm.const_data_ptr<float>();
        call.weight_gradient = d_norm.data_ptr<float>();
    }
    return call;
}

}  // namespace amalgam
