// SPDX-License-Identifier: Apache-2.0
#include "mixers/gated_linear_attention/gated_linear_attention_mixing.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <mutex>

#include "kernels/gated_linear_attention/gated_linear_attention.h"
#include "operations/gated_norm_call.h"
#include "operations/kernel_calls.h"
#include "operations/operations.h"
#include "system/error.h"
#include "system/log.h"

#ifdef AMALGAM_CUDA
#include "operations/cuda_resources.h"
#endif

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

GatedNormShape norm_shape(const LinearAttentionShape& s) {
    return {s.heads, s.head_dim, s.gate ? 3 * s.width() : -1};
}

/// The kernels' arguments.
struct Call {
    kernels::GatedLinearAttentionShape shape;
    kernels::GatedLinearAttentionOptions options;
    kernels::GatedLinearAttentionInputs inputs;

    Call(const at::Tensor& projected, const at::Tensor& decay, const LinearAttentionShape& s) {
        shape = {projected.size(0), projected.size(1), s.heads, s.head_dim, s.head_dim};
        options.element_type = element_type(projected);
        options.gate_logit_normalizer = float(gate_logit_normalizer);
        auto part = [&](int64_t i) {
            return kernels::ConstRows{at_column(projected, i * s.width()), projected.size(2)};
        };
        inputs = {part(0), part(1), part(2), {decay.const_data_ptr(), decay.size(2)}, nullptr};
    }
};

#ifdef AMALGAM_CUDA
at::Tensor device_states(const Call& call, const at::Tensor& like) {
    return device_bytes(like, kernels::cuda::gated_linear_attention_states_bytes(call.shape));
}
#endif

/// o [batch, time, heads, head_dim]. `states`: what a backward pass on a GPU reads; undefined on CPUs.
at::Tensor run_forward(const Call& call, const at::Tensor& projected, float* final_state, at::Tensor& states) {
    const at::Tensor o =
        at::empty({call.shape.batch, call.shape.time, call.shape.heads, call.shape.value_dim}, projected.options());
#ifdef AMALGAM_CUDA
    if (projected.is_cuda()) {
        states = device_states(call, projected);
        kernels::cuda::gated_linear_attention_forward(call.shape, call.options, call.inputs,
                                                      {o.data_ptr(), final_state}, states.data_ptr(),
                                                      stream_of(projected));
        return o;
    }
#endif
    states = at::Tensor();
    kernels::gated_linear_attention_forward(call.shape, call.options, call.inputs, {o.data_ptr(), final_state},
                                            kernel_threads());
    return o;
}

void run_decode(const Call& call, const at::Tensor& states, const at::Tensor& o) {
#ifdef AMALGAM_CUDA
    if (o.is_cuda())
        return kernels::cuda::gated_linear_attention_decode(call.shape, call.options, call.inputs,
                                                            states.data_ptr<float>(), o.data_ptr(), stream_of(o));
#endif
    kernels::gated_linear_attention_decode(call.shape, call.options, call.inputs, states.data_ptr<float>(),
                                           o.data_ptr(), kernel_threads());
}

/// Of the rule's output o.
at::Tensor norm_and_gate(const at::Tensor& o, const at::Tensor& projected, const at::Tensor& norm,
                         const LinearAttentionShape& shape) {
    return gated_rms_norm(o, shape.gate ? projected.narrow(-1, 3 * shape.width(), shape.width()) : at::Tensor(), norm,
                          shape.norm_eps);
}

/// Writes the columns q | k | v of d_projected, d_decay and, where a state entered and left, d_before. `states`: what
/// run_forward gave.
void run_backward(const Call& call, const at::Tensor& d_o, const at::Tensor& d_after, const at::Tensor& states,
                  const at::Tensor& d_projected, const at::Tensor& d_decay, const at::Tensor& d_before) {
    const int64_t width = call.shape.heads * call.shape.key_dim;
    auto part = [&](int64_t i) { return kernels::Rows{at_column(d_projected, i * width), d_projected.size(2)}; };
    const kernels::GatedLinearAttentionGradients gradients{
        part(0), part(1), part(2), {d_decay.data_ptr(), d_decay.size(2)}, data_or_null(d_before)};
#ifdef AMALGAM_CUDA
    if (d_o.is_cuda()) {
        const at::Tensor scratch = device_states(call, d_o);
        return kernels::cuda::gated_linear_attention_backward(call.shape, call.options, call.inputs, d_o.data_ptr(),
                                                              data_or_null(d_after), states.data_ptr(),
                                                              scratch.data_ptr(), gradients, stream_of(d_o));
    }
#endif
    (void)states;
    kernels::gated_linear_attention_backward(call.shape, call.options, call.inputs, d_o.data_ptr(),
                                             data_or_null(d_after), gradients, kernel_threads());
}

struct Mixing : Function<Mixing> {
    /// -> the mixed tokens and, where a state enters, the state that leaves.
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& decay_input,
                               const std::optional<at::Tensor>& given_norm,
                               const std::optional<at::Tensor>& given_before, int64_t heads, int64_t head_dim,
                               bool gate, double eps) {
        const LinearAttentionShape shape{heads, head_dim, gate, eps};
        const at::Tensor norm = given_norm.value_or(at::Tensor()),
                         before = given_before ? given_before->contiguous() : at::Tensor(),
                         after = before.defined() ? at::empty_like(before) : at::Tensor();
        const at::Tensor projected = input.contiguous(), decay = decay_input.contiguous();
        at::Tensor states;
        Call call(projected, decay, shape);
        call.inputs.initial_state = data_or_null(before);
        const at::Tensor o = run_forward(call, projected, data_or_null(after), states);
        at::Tensor y = at::empty({o.size(0), o.size(1), shape.width()}, o.options());
        const at::Tensor rstd = at::empty({o.size(0) * o.size(1), heads}, o.options().dtype(at::kFloat));
        run(o, gated_norm_forward(o, projected, norm, y, rstd, norm_shape(shape), eps));
        ctx->save_for_backward({projected, decay, norm, o, rstd, states, before});
        ctx->saved_data["heads"] = heads;
        ctx->saved_data["head_dim"] = head_dim;
        ctx->saved_data["gate"] = gate;
        if (!after.defined()) return {y};
        return {y, after};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list output_gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &projected = saved[0], &decay = saved[1], &norm = saved[2], &o = saved[3], &rstd = saved[4],
                         &before = saved[6];
        // norm_eps is in rstd already.
        const LinearAttentionShape shape{ctx->saved_data["heads"].toInt(), ctx->saved_data["head_dim"].toInt(),
                                         ctx->saved_data["gate"].toBool(), 0.0};
        const at::Tensor dy = collapsible(output_gradients[0], 1);
        // Every column is written by one of the two kernels: nothing to clear, nothing to add.
        const at::Tensor d_projected = at::empty_like(projected), d_decay = at::empty_like(decay);
        const at::Tensor d_o = at::empty_like(o);
        at::Tensor d_norm;
        if (norm.defined()) d_norm = at::empty_like(norm);
        run(o, gated_norm_backward(dy, o, projected, norm, rstd, d_o, d_projected, d_norm, norm_shape(shape)));
        at::Tensor d_before, d_after;
        Call call(projected, decay, shape);
        if (before.defined()) {
            call.inputs.initial_state = data_or_null(before);
            d_before = at::empty_like(before);
            d_after = output_gradients[1].contiguous();
        }
        run_backward(call, d_o, d_after, saved[5], d_projected, d_decay, d_before);
        return {d_projected, d_decay, d_norm, d_before, at::Tensor(), at::Tensor(), at::Tensor(), at::Tensor()};
    }
};

tensor_list mix_by_kernels(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                           const std::optional<at::Tensor>& before, const LinearAttentionShape& shape) {
    return Mixing::apply(projected, decay, if_defined(norm), before, shape.heads, shape.head_dim, shape.gate,
                         shape.norm_eps);
}

bool runs_on_rule_kernels(const at::Tensor& projected, const LinearAttentionShape& shape) {
    if (!projected.is_cuda()) return runs_on_cpu_kernels(projected);
#ifdef AMALGAM_CUDA
    if (runs_on_kernels(projected) &&
        kernels::cuda::gated_linear_attention_supports(
            {projected.size(0), projected.size(1), shape.heads, shape.head_dim, shape.head_dim},
            {element_type(projected)}))
        return true;
#endif
    static std::once_flag once;
    std::call_once(once, [&] {
        warn(text("gated linear attention: there is no CUDA kernel for ", at::toString(projected.scalar_type()),
                  " and head dimension ", shape.head_dim,
                  " in this build (LibTorch operations run instead, many times slower); use bf16, a head dimension of "
                  "64 or 128 and a build with AMALGAM_CUDA"));
    });
    return false;
}

at::Tensor mix_with_operations(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                               const LinearAttentionShape& shape, at::Tensor* state) {
    const auto math_type = projected.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    auto heads = [&](const at::Tensor& t) { return t.to(math_type).unflatten(-1, {shape.heads, shape.head_dim}); };
    const auto parts = at::split(projected, shape.width(), -1);
    at::Tensor none;
    const at::Tensor o = gated_linear_attention_chunked(
        heads(parts[0]) / std::sqrt(double(shape.head_dim)), heads(parts[1]), heads(parts[2]),
        at::log_sigmoid(heads(decay)) / gate_logit_normalizer, state ? *state : none);
    return gated_rms_norm(o.to(projected.scalar_type()), shape.gate ? parts[3] : at::Tensor(), norm, shape.norm_eps);
}

}  // namespace

at::Tensor gated_linear_attention_mixing(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                                         const LinearAttentionShape& shape, at::Tensor* state) {
    if (!runs_on_rule_kernels(projected, shape)) return mix_with_operations(projected, decay, norm, shape, state);
    if (!state) return mix_by_kernels(projected, decay, norm, std::nullopt, shape)[0];
    const at::Tensor contiguous = projected.contiguous(), logits = decay.contiguous();
    Call call(contiguous, logits, shape);
    call.inputs.initial_state = state->const_data_ptr<float>();
    at::Tensor states;
    return norm_and_gate(run_forward(call, contiguous, state->data_ptr<float>(), states), contiguous, norm, shape);
}

MixedPiece gated_linear_attention_mixing_of_piece(const at::Tensor& projected, const at::Tensor& decay,
                                                  const at::Tensor& norm, const LinearAttentionShape& shape,
                                                  const at::Tensor& before) {
    if (runs_on_rule_kernels(projected, shape)) {
        const tensor_list both = mix_by_kernels(projected, decay, norm, before, shape);
        return {both[0], both[1]};
    }
    at::Tensor state = before;
    const at::Tensor y = mix_with_operations(projected, decay, norm, shape, &state);
    return {y, state};
}

at::Tensor gated_linear_attention_step(const at::Tensor& projected, const at::Tensor& decay, const at::Tensor& norm,
                                       const LinearAttentionShape& shape, const at::Tensor& states,
                                       const at::Tensor& slots) {
    if (!runs_on_rule_kernels(projected, shape)) {
        const at::Tensor places = slots.to(at::kLong);
        at::Tensor state = states.index_select(0, places);
        const at::Tensor y = mix_with_operations(projected, decay, norm, shape, &state);
        states.index_copy_(0, places, state);
        return y;
    }
    const at::Tensor contiguous = projected.contiguous(), logits = decay.contiguous();
    Call call(contiguous, logits, shape);
    call.inputs.slot = slots.const_data_ptr<int32_t>();
    const at::Tensor o = at::empty({contiguous.size(0), 1, shape.heads, shape.head_dim}, contiguous.options());
    run_decode(call, states, o);
    return norm_and_gate(o, contiguous, norm, shape);
}

}  // namespace amalgam
