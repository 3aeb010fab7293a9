// SPDX-License-Identifier: Apache-2.0
#include "mixers/kimi_delta_attention/kimi_delta_rule_cuda.h"

#include <ATen/ATen.h>

#include <mutex>
#include <stdexcept>

#include "system/log.h"

#ifdef AMALGAM_CUDA
#include "kernels/kimi_delta_attention/kimi_delta_attention_cuda.h"
#include "operations/cuda_resources.h"
#endif

namespace amalgam {
namespace {

void warn_once(const std::string& why) {
    static std::once_flag once;
    std::call_once(once, [&] {
        warn("Kimi Delta Attention: " + why +
             " (LibTorch operations run instead, many times slower); use bf16, a head dimension of 64 or 128 and a "
             "build with AMALGAM_CUDA");
    });
}

}  // namespace

#ifndef AMALGAM_CUDA

bool runs_on_cuda_kernels(const KimiDeltaTokens& tokens, const KimiDeltaShape&) {
    if (tokens.qkv.is_cuda()) warn_once("this build has no CUDA kernels");
    return false;
}

at::Tensor kimi_delta_rule_on_cuda(const KimiDeltaTokens&, const at::Tensor&, const at::Tensor&, const KimiDeltaShape&,
                                   const at::Tensor&, at::Tensor*) {
    throw std::logic_error("Kimi Delta Attention: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

MixedPiece kimi_delta_rule_of_piece_on_cuda(const KimiDeltaTokens&, const at::Tensor&, const at::Tensor&,
                                            const KimiDeltaShape&, const at::Tensor&, const at::Tensor&) {
    throw std::logic_error("Kimi Delta Attention: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

void kimi_delta_decode_on_cuda(const KimiDeltaCall&, const at::Tensor&, const at::Tensor&) {
    throw std::logic_error("Kimi Delta Attention: this build has no CUDA kernels; ask runs_on_cuda_kernels first");
}

#else

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// `workspace` is set to what a backward pass reads, where one is to follow.
at::Tensor run_rule(const KimiDeltaCall& call, const at::Tensor& like, float* final_state, bool for_backward,
                    at::Tensor& workspace) {
    workspace = device_bytes(
        like, kernels::cuda::kimi_delta_attention_workspace_bytes(call.shape, call.options, call.inputs, for_backward));
    const at::Tensor o = call.make_output(like);
    kernels::cuda::kimi_delta_attention_forward(call.shape, call.options, call.inputs, {o.data_ptr(), final_state},
                                                workspace.data_ptr(), for_backward, stream_of(like));
    return o;
}

struct KimiDeltaRuleOnCuda : Function<KimiDeltaRuleOnCuda> {
    /// -> o and, where a state enters, the state that leaves.
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& qkv, const at::Tensor& a, const at::Tensor& b,
                               const at::Tensor& a_log, const at::Tensor& dt_bias,
                               const std::optional<at::Tensor>& given_before,
                               const std::optional<at::Tensor>& given_starts, int64_t heads, int64_t head_dim,
                               bool activation, double lower_bound) {
        const KimiDeltaShape shape{heads, head_dim, activation, lower_bound};
        const KimiDeltaTokens tokens = collapsible({qkv, a, b});
        const at::Tensor starts = given_starts.value_or(at::Tensor()),
                         before = given_before ? given_before->contiguous() : at::Tensor(),
                         after = before.defined() ? at::empty_like(before) : at::Tensor();
        KimiDeltaCall call(tokens, a_log, dt_bias, shape, starts);
        call.inputs.initial_state = data_or_null(before);
        at::Tensor workspace;
        const at::Tensor o = run_rule(call, qkv, data_or_null(after), true, workspace);
        KimiDeltaSaved{tokens, a_log, dt_bias, workspace, shape, before, starts}.keep_in(ctx);
        if (!after.defined()) return {o};
        return {o, after};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list output_gradients) {
        const auto [tokens, a_log, dt_bias, workspace, shape, before, starts] = KimiDeltaSaved::kept_in(ctx);
        const at::Tensor d_o = output_gradients[0].contiguous();
        KimiDeltaCall call(tokens, a_log, dt_bias, shape, starts);
        const KimiDeltaGradients gradients(tokens, a_log, dt_bias);
        auto call_gradients = gradients.call(shape);
        at::Tensor d_before, d_after;
        if (before.defined()) {
            call.inputs.initial_state = data_or_null(before);
            d_before = at::empty_like(before);
            call_gradients.initial_state = data_or_null(d_before);
            d_after = output_gradients[1].contiguous();
        }
        const at::Tensor scratch = device_bytes(d_o, kernels::cuda::kimi_delta_attention_scratch_bytes(call.shape));
        kernels::cuda::kimi_delta_attention_backward(call.shape, call.options, call.inputs, d_o.const_data_ptr(),
                                                     data_or_null(d_after), workspace.const_data_ptr(),
                                                     scratch.data_ptr(), call_gradients, stream_of(d_o));
        return {gradients.tokens.qkv, gradients.tokens.a, gradients.tokens.b, gradients.a_log,
                gradients.dt_bias,    d_before,           at::Tensor(),       at::Tensor(),
                at::Tensor(),         at::Tensor(),       at::Tensor()};
    }
};

tensor_list rule_with_gradients(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                const std::optional<at::Tensor>& before, const std::optional<at::Tensor>& starts,
                                const KimiDeltaShape& shape) {
    return KimiDeltaRuleOnCuda::apply(tokens.qkv, tokens.a, tokens.b, a_log, dt_bias, before, starts, shape.heads,
                                      shape.head_dim, shape.activation, shape.lower_bound);
}

}  // namespace

bool runs_on_cuda_kernels(const KimiDeltaTokens& tokens, const KimiDeltaShape& shape) {
    if (!tokens.qkv.is_cuda()) return false;
    kernels::KimiDeltaAttentionOptions options;
    if (tokens.qkv.scalar_type() == at::kBFloat16) options.element_type = kernels::ElementType::bfloat16;
    options.lower_bound = float(shape.lower_bound);
    if (kernels::cuda::kimi_delta_attention_supports(
            {tokens.qkv.size(0), tokens.qkv.size(1), shape.heads, shape.head_dim, shape.head_dim}, options))
        return true;
    warn_once(std::string("there is no CUDA kernel for ") + at::toString(tokens.qkv.scalar_type()) +
              " and head dimension " + std::to_string(shape.head_dim));
    return false;
}

at::Tensor kimi_delta_rule_on_cuda(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                   const KimiDeltaShape& shape, const at::Tensor& starts, at::Tensor* state) {
    if (!state && wants_gradient({tokens.qkv, tokens.a, tokens.b, a_log, dt_bias}))
        return rule_with_gradients(tokens, a_log, dt_bias, std::nullopt, if_defined(starts), shape)[0];
    const KimiDeltaTokens rows = collapsible(tokens);
    KimiDeltaCall call(rows, a_log, dt_bias, shape, starts);
    // Every block reads its initial state before it writes the final one.
    if (state) call.inputs.initial_state = state->const_data_ptr<float>();
    at::Tensor workspace;
    return run_rule(call, tokens.qkv, state ? state->data_ptr<float>() : nullptr, false, workspace);
}

MixedPiece kimi_delta_rule_of_piece_on_cuda(const KimiDeltaTokens& tokens, const at::Tensor& a_log,
                                            const at::Tensor& dt_bias, const KimiDeltaShape& shape,
                                            const at::Tensor& starts, const at::Tensor& before) {
    if (wants_gradient({tokens.qkv, tokens.a, tokens.b, a_log, dt_bias, before})) {
        const tensor_list both = rule_with_gradients(tokens, a_log, dt_bias, before, if_defined(starts), shape);
        return {both[0], both[1]};
    }
    at::Tensor state = before.clone(at::MemoryFormat::Contiguous);
    const at::Tensor o = kimi_delta_rule_on_cuda(tokens, a_log, dt_bias, shape, starts, &state);
    return {o, state};
}

void kimi_delta_decode_on_cuda(const KimiDeltaCall& call, const at::Tensor& states, const at::Tensor& o) {
    kernels::cuda::kimi_delta_attention_decode(call.shape, call.options, call.inputs, states.data_ptr<float>(),
                                               o.data_ptr(), stream_of(o));
}

#endif

}  // namespace amalgam
