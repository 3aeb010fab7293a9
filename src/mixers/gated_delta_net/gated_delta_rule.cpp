// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_delta_net/gated_delta_rule.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "mixers/gated_delta_net/gated_delta_call.h"
#include "mixers/gated_delta_net/gated_delta_rule_cuda.h"
#include "operations/kernel_calls.h"
#include "operations/operations.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// The kernel wants its workspace aligned to a cache line, as LibTorch's CPU allocations are.
at::Tensor workspace_for(const GatedDeltaCall& call) {
    return at::empty({int64_t(kernels::gated_delta_rule_workspace_bytes(call.shape, call.options))}, at::kByte);
}

struct GatedDeltaMixing : Function<GatedDeltaMixing> {
    /// -> the mixed tokens and, where a state enters, the state that leaves.
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& a_log,
                               const at::Tensor& dt_bias, const std::optional<at::Tensor>& given_norm,
                               const std::optional<at::Tensor>& given_before,
                               const std::optional<at::Tensor>& given_starts, int64_t heads, int64_t head_dim,
                               bool gate, bool activation, double eps) {
        const at::Tensor norm = given_norm.value_or(at::Tensor()), starts = given_starts.value_or(at::Tensor()),
                         before = given_before ? given_before->contiguous() : at::Tensor();
        const GatedDeltaShape shape{heads, head_dim, gate, activation, eps};
        const at::Tensor projected = input.contiguous();
        GatedDeltaCall call(projected, a_log, dt_bias, shape, starts);
        const at::Tensor o = at::empty({projected.size(0), projected.size(1), heads, head_dim}, projected.options());
        const at::Tensor workspace = workspace_for(call);
        const at::Tensor after = before.defined() ? at::empty_like(before) : at::Tensor();
        call.inputs.initial_state = data_or_null(before);
        kernels::gated_delta_rule_forward(call.shape, call.options, call.inputs, {o.data_ptr(), data_or_null(after)},
                                          workspace.data_ptr());

        at::Tensor y = at::empty({projected.size(0), projected.size(1), shape.width()}, projected.options());
        const at::Tensor rstd = at::empty({o.size(0) * o.size(1), heads}, o.options().dtype(at::kFloat));
        run(o, gated_norm_forward(o, projected, norm, y, rstd, norm_shape(shape), shape.norm_eps));

        GatedDeltaSaved{projected, a_log, dt_bias, norm, o, rstd, workspace, shape, before, starts}.keep_in(ctx);
        if (!after.defined()) return {y};
        return {y, after};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto [projected, a_log, dt_bias, norm, o, rstd, workspace, shape, before, starts] =
            GatedDeltaSaved::kept_in(ctx);
        const at::Tensor dy = collapsible(gradients[0], 1);
        // Every column is written by one of the two kernels: nothing to clear, nothing to add.
        at::Tensor d_projected = at::empty_like(projected);
        at::Tensor d_o = at::empty_like(o), d_norm;

        if (norm.defined()) d_norm = at::empty_like(norm);
        run(o, gated_norm_backward(dy, o, projected, norm, rstd, d_o, d_projected, d_norm, norm_shape(shape)));

        GatedDeltaCall call(projected, a_log, dt_bias, shape, starts);
        at::Tensor d_a_log = at::empty_like(a_log), d_dt_bias = at::empty_like(dt_bias), d_before, d_after;
        auto call_gradients = GatedDeltaCall::gradients(d_projected, d_a_log, d_dt_bias, shape);
        if (before.defined()) {
            call.inputs.initial_state = data_or_null(before);
            d_before = at::empty_like(before);
            call_gradients.initial_state = data_or_null(d_before);
            d_after = gradients[1].contiguous();
        }
        kernels::gated_delta_rule_backward(call.shape, call.options, call.inputs, d_o.data_ptr(), data_or_null(d_after),
                                           workspace.data_ptr(), call_gradients);
        return {d_projected,  d_a_log,      d_dt_bias,    d_norm,       d_before,    at::Tensor(),
                at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

tensor_list mix_on_cpu(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                       const at::Tensor& norm, const std::optional<at::Tensor>& before,
                       const std::optional<at::Tensor>& starts, const GatedDeltaShape& shape) {
    return GatedDeltaMixing::apply(projected, a_log, dt_bias, if_defined(norm), before, starts, shape.heads,
                                   shape.head_dim, shape.gate, shape.activation, shape.norm_eps);
}

/// On CPUs: continues from `state` and overwrites it.
at::Tensor continue_on_cpu(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                           const GatedDeltaShape& shape, at::Tensor& state) {
    GatedDeltaCall call(projected, a_log, dt_bias, shape);
    const at::Tensor o =
        at::empty({projected.size(0), projected.size(1), shape.heads, shape.head_dim}, projected.options());
    const at::Tensor before = state.clone();
    call.inputs.initial_state = before.const_data_ptr<float>();
    kernels::gated_delta_rule_forward(call.shape, call.options, call.inputs, {o.data_ptr(), state.data_ptr<float>()},
                                      nullptr);
    return o;
}

/// Of the rule's output o.
at::Tensor norm_and_gate(const at::Tensor& o, const at::Tensor& projected, const at::Tensor& norm,
                         const GatedDeltaShape& shape) {
    const at::Tensor gate =
        shape.gate ? projected.narrow(-1, GatedDeltaColumns(shape).gate, shape.width()) : at::Tensor();
    return gated_rms_norm(o, gate, norm, shape.norm_eps);
}

at::Tensor mix_with_operations(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                               const at::Tensor& norm, const GatedDeltaShape& shape, at::Tensor* state,
                               const Documents* documents = nullptr) {
    std::vector<int64_t> sizes(shape.gate ? 4 : 3, shape.width());
    sizes.insert(sizes.end(), {shape.heads, shape.heads});
    const auto parts = at::split_with_sizes(projected.narrow(-1, 0, shape.columns()), sizes, -1);
    const auto math_type = projected.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    auto qkv = [&](int i) {
        const auto t = parts[i].to(math_type).unflatten(-1, {shape.heads, shape.head_dim});
        return shape.activation ? at::silu(t) : t;
    };
    auto unit = [](const at::Tensor& t) { return t * at::rsqrt(t.square().sum(-1, true) + 1e-6); };
    const size_t gates = sizes.size() - 2;
    at::Tensor g = -a_log.exp() * at::softplus(parts[gates].to(math_type) + dt_bias);
    if (documents) g = documents->forgetting(g);
    const auto beta = at::sigmoid(parts[gates + 1].to(math_type));
    at::Tensor none;
    const at::Tensor o = gated_delta_rule_chunked(unit(qkv(0)) / std::sqrt(double(shape.head_dim)), unit(qkv(1)),
                                                  qkv(2), g, beta, state ? *state : none);
    return gated_rms_norm(o.to(projected.scalar_type()), shape.gate ? parts[3] : at::Tensor(), norm, shape.norm_eps);
}

}  // namespace

at::Tensor gated_delta_mixing(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                              const at::Tensor& norm, const GatedDeltaShape& shape, at::Tensor* state) {
    if (runs_on_cuda_kernels(projected, shape))
        return gated_delta_mixing_on_cuda(projected, a_log, dt_bias, norm, shape, {}, state);
    if (!runs_on_cpu_kernels(projected)) return mix_with_operations(projected, a_log, dt_bias, norm, shape, state);
    if (!state) return mix_on_cpu(projected, a_log, dt_bias, norm, std::nullopt, std::nullopt, shape)[0];
    const at::Tensor contiguous = projected.contiguous();
    return norm_and_gate(continue_on_cpu(contiguous, a_log, dt_bias, shape, *state), contiguous, norm, shape);
}

MixedPiece gated_delta_mixing_of_piece(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                       const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& before,
                                       const DocumentsOfPiece* documents) {
    const bool on_gpu = runs_on_cuda_kernels(projected, shape);
    if (on_gpu || runs_on_cpu_kernels(projected))
        return mix_packed(documents, before, [&](const at::Tensor& state, const at::Tensor& starts) -> MixedPiece {
            if (on_gpu)
                return gated_delta_mixing_of_piece_on_cuda(projected, a_log, dt_bias, norm, shape, starts, state);
            const tensor_list both = mix_on_cpu(projected, a_log, dt_bias, norm, state, if_defined(starts), shape);
            return {both[0], both[1]};
        });
    at::Tensor state = before;
    const at::Tensor y =
        mix_with_operations(projected, a_log, dt_bias, norm, shape, &state, documents ? &documents->own() : nullptr);
    return {y, state};
}

at::Tensor gated_delta_mixing_of_documents(const at::Tensor& projected, const at::Tensor& a_log,
                                           const at::Tensor& dt_bias, const at::Tensor& norm,
                                           const GatedDeltaShape& shape, const Documents& documents) {
    const at::Tensor& starts = documents.starts();
    if (runs_on_cuda_kernels(projected, shape))
        return gated_delta_mixing_on_cuda(projected, a_log, dt_bias, norm, shape, starts, nullptr);
    if (runs_on_cpu_kernels(projected))
        return mix_on_cpu(projected, a_log, dt_bias, norm, std::nullopt, starts, shape)[0];
    return mix_with_operations(projected, a_log, dt_bias, norm, shape, nullptr, &documents);
}

at::Tensor gated_delta_step(const at::Tensor& projected, const at::Tensor& a_log, const at::Tensor& dt_bias,
                            const at::Tensor& norm, const GatedDeltaShape& shape, const at::Tensor& states,
                            const at::Tensor& slots) {
    const bool on_gpu = runs_on_cuda_kernels(projected, shape);
    if (!on_gpu && !runs_on_cpu_kernels(projected)) {
        const at::Tensor places = slots.to(at::kLong);
        at::Tensor state = states.index_select(0, places);
        const at::Tensor y = mix_with_operations(projected, a_log, dt_bias, norm, shape, &state);
        states.index_copy_(0, places, state);
        return y;
    }
    const at::Tensor contiguous = projected.contiguous();
    GatedDeltaCall call(contiguous, a_log, dt_bias, shape);
    call.inputs.slot = slots.const_data_ptr<int32_t>();
    const at::Tensor o = at::empty({contiguous.size(0), 1, shape.heads, shape.head_dim}, contiguous.options());
    if (on_gpu)
        gated_delta_decode_on_cuda(call, states, o);
    else
        kernels::gated_delta_rule_decode(call.shape, call.options, call.inputs, states.data_ptr<float>(), o.data_ptr());
    return norm_and_gate(o, contiguous, norm, shape);
}

}  // namespace amalgam
