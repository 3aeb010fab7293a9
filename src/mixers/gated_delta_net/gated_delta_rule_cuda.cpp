// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/gated_delta_rule_cuda.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <mutex>
#include <stdexcept>

#include "mixers/gated_delta_net/gated_delta_call.h"
#include "operations/kernel_calls.h"
#include "system/log.h"

#ifdef AMALGAM_CUDA
#include "kernels/gated_delta_rule/gated_delta_rule_cuda.h"
#include "operations/cuda_resources.h"
#endif

namespace amalgam {
namespace {

void warn_once(const std::string& why) {
    static std::once_flag once;
    std::call_once(once, [&] {
        warn("gated delta rule: " + why +
             " (LibTorch operations run instead, many times slower); use bf16, a head dimension of 64 or 128 and a "
             "build with AMALGAM_CUDA");
    });
}

}  // namespace

#ifndef AMALGAM_CUDA

bool runs_on_cuda_kernels(const at::Tensor& projected, const GatedDeltaShape&) {
    if (projected.device().is_cuda()) warn_once("this build has no CUDA kernels");
    return false;
}

at::Tensor gated_delta_mixing_on_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                      const GatedDeltaShape&, const at::Tensor&, at::Tensor*) {
    throw std::logic_error("gated delta rule: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

MixedPiece gated_delta_mixing_of_piece_on_cuda(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                               const at::Tensor&, const GatedDeltaShape&, const at::Tensor&,
                                               const at::Tensor&) {
    throw std::logic_error("gated delta rule: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

void gated_delta_decode_on_cuda(const GatedDeltaCall&, const at::Tensor&, const at::Tensor&) {
    throw std::logic_error("gated delta rule: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

#else

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// o [batch, time, heads, head_dim]; `workspace` is set to what a backward pass reads, where one is to follow.
at::Tensor run_rule(const GatedDeltaCall& call, const at::Tensor& projected, float* final_state, bool for_backward,
                    at::Tensor& workspace) {
    workspace = device_bytes(projected, kernels::cuda::gated_delta_rule_workspace_bytes(call.shape, call.options,
                                                                                        call.inputs, for_backward));
    at::Tensor o =
        at::empty({projected.size(0), projected.size(1), call.shape.heads, call.shape.value_dim}, projected.options());
    kernels::cuda::gated_delta_rule_forward(call.shape, call.options, call.inputs, {o.data_ptr(), final_state},
                                            workspace.data_ptr(), for_backward, stream_of(projected));
    return o;
}

at::Tensor norm_and_gate(const at::Tensor& o, const at::Tensor& projected, const at::Tensor& norm,
                         const GatedDeltaShape& shape, at::Tensor& rstd) {
    at::Tensor y = at::empty({o.size(0), o.size(1), shape.width()}, o.options());
    rstd = at::empty({o.size(0) * o.size(1), shape.heads}, o.options().dtype(at::kFloat));
    run(o, gated_norm_forward(o, projected, norm, y, rstd, norm_shape(shape), shape.norm_eps));
    return y;
}

struct GatedDeltaMixingOnCuda : Function<GatedDeltaMixingOnCuda> {
    /// -> the mixed tokens and, where a state enters, the state that leaves.
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& a_log,
                               const at::Tensor& dt_bias, const std::optional<at::Tensor>& given_norm,
                               const std::optional<at::Tensor>& given_before,
                               const std::optional<at::Tensor>& given_starts, int64_t heads, int64_t head_dim,
                               bool gate, bool activation, double eps) {
        const at::Tensor norm = given_norm.value_or(at::Tensor()), starts = given_starts.value_or(at::Tensor()),
                         before = given_before ? given_before->contiguous() : at::Tensor(),
                         after = before.defined() ? at::empty_like(before) : at::Tensor();
        const GatedDeltaShape shape{heads, head_dim, gate, activation, eps};
        const at::Tensor projected = input.contiguous();
        at::Tensor workspace, rstd;
        GatedDeltaCall call(projected, a_log, dt_bias, shape, starts);
        call.inputs.initial_state = data_or_null(before);
        const at::Tensor o = run_rule(call, projected, data_or_null(after), true, workspace);
        const at::Tensor y = norm_and_gate(o, projected, norm, shape, rstd);
        GatedDeltaSaved{projected, a_log, dt_bias, norm, o, rstd, workspace, shape, before, starts}.keep_in(ctx);
        if (!after.defined()) return {y};
        return {y, after};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto [projected, a_log, dt_bias, norm, o, rstd, workspace, shape, before, starts] =
            GatedDeltaSaved::kept_in(ctx);
        const at::Tensor dy = collapsible(gradients[0], 1);
        // Every column that means something is written by one of the two kernels: nothing to add.
        const at::Tensor d_projected = at::empty_like(projected), d_o = at::empty_like(o);
        if (const int64_t extra = projected.size(-1) - shape.columns(); extra > 0)
            d_projected.narrow(-1, shape.columns(), extra).zero_();
        at::Tensor d_norm;
        if (norm.defined()) d_norm = at::empty_like(norm);
        run(o, gated_norm_backward(dy, o, projected, norm, rstd, d_o, d_projected, d_norm, norm_shape(shape)));

        GatedDeltaCall call(projected, a_log, dt_bias, shape, starts);
        const at::Tensor d_a_log = at::empty_like(a_log), d_dt_bias = at::empty_like(dt_bias);
        auto call_gradients = GatedDeltaCall::gradients(d_projected, d_a_log, d_dt_bias, shape);
        at::Tensor d_before, d_after;
        if (before.defined()) {
            call.inputs.initial_state = data_or_null(before);
            d_before = at::empty_like(before);
            call_gradients.initial_state = data_or_null(d_before);
            d_after = gradients[1].contiguous();
        }
        const at::Tensor scratch = device_bytes(projected, kernels::cuda::gated_delta_rule_scratch_bytes(call.shape));
        kernels::cuda::gated_delta_rule_backward(call.shape, call.options, call.inputs, d_o.data_ptr(),
                                                 data_or_null(d_after), workspace.data_ptr(), scratch.data_ptr(),
                                                 call_gradients, stream_of(projected));
        return {d_projected,  d_a_log,      d_dt_bias,    d_norm,       d_before,    at::Tensor(),
                at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

tensor_list mix_with_gradients(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                               const at::Tensor& norm, const std::optional<at::Tensor>& before,
                               const std::optional<at::Tensor>& starts, const GatedDeltaShape& shape) {
    return GatedDeltaMixingOnCuda::apply(projected, a_log, dt_bias, if_defined(norm), before, starts, shape.heads,
                                         shape.head_dim, shape.gate, shape.activation, shape.norm_eps);
}

}  // namespace

bool runs_on_cuda_kernels(const at::Tensor& projected, const GatedDeltaShape& shape) {
    if (!projected.device().is_cuda()) return false;
    kernels::GatedDeltaRuleOptions options;
    if (projected.scalar_type() == at::kBFloat16) options.element_type = kernels::ElementType::bfloat16;
    if (kernels::cuda::gated_delta_rule_supports(
            {projected.size(0), projected.size(1), shape.heads, shape.head_dim, shape.head_dim}, options))
        return true;
    warn_once(std::string("there is no CUDA kernel for ") + at::toString(projected.scalar_type()) +
              " and head dimension " + std::to_string(shape.head_dim));
    return false;
}

at::Tensor gated_delta_mixing_on_cuda(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                      const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& starts,
                                      at::Tensor* state) {
    if (!state && wants_gradient({projected, a_log, dt_bias, norm}))
        return mix_with_gradients(projected, a_log, dt_bias, norm, std::nullopt, if_defined(starts), shape)[0];
    const at::Tensor contiguous = projected.contiguous();
    GatedDeltaCall call(contiguous, a_log, dt_bias, shape, starts);
    at::Tensor workspace, rstd;
    // Every block reads its initial state before it writes the final one.
    if (state) call.inputs.initial_state = state->const_data_ptr<float>();
    const at::Tensor o = run_rule(call, contiguous, state ? state->data_ptr<float>() : nullptr, false, workspace);
    return norm_and_gate(o, contiguous, norm, shape, rstd);
}

MixedPiece gated_delta_mixing_of_piece_on_cuda(const at::Tensor& projected, const at::Tensor& a_log,
                                               const at::Tensor& dt_bias, const at::Tensor& norm,
                                               const GatedDeltaShape& shape, const at::Tensor& starts,
                                               const at::Tensor& before) {
    if (wants_gradient({projected, a_log, dt_bias, norm, before})) {
        const tensor_list both = mix_with_gradients(projected, a_log, dt_bias, norm, before, if_defined(starts), shape);
        return {both[0], both[1]};
    }
    at::Tensor state = before.clone(at::MemoryFormat::Contiguous);
    const at::Tensor y = gated_delta_mixing_on_cuda(projected, a_log, dt_bias, norm, shape, starts, &state);
    return {y, state};
}

void gated_delta_decode_on_cuda(const GatedDeltaCall& call, const at::Tensor& states, const at::Tensor& o) {
    kernels::cuda::gated_delta_rule_decode(call.shape, call.options, call.inputs, states.data_ptr<float>(),
                                           o.data_ptr(), stream_of(o));
}

#endif

}  // namespace amalgam
