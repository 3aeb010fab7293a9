// SPDX-License-Identifier: Apache-2.0
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "mixers/kimi_delta_attention/kimi_delta_call.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule_cuda.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// On CPUs.
struct KimiDeltaRule : Function<KimiDeltaRule> {
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
        const at::Tensor o = call.make_output(qkv);
        // The kernel wants its workspace aligned to a cache line, as LibTorch's CPU allocations are.
        const at::Tensor workspace =
            at::empty({int64_t(kernels::kimi_delta_attention_workspace_bytes(call.shape, call.options))}, at::kByte);
        kernels::kimi_delta_attention_forward(call.shape, call.options, call.inputs,
                                              {o.data_ptr(), data_or_null(after)}, workspace.data_ptr());
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
        kernels::kimi_delta_attention_backward(call.shape, call.options, call.inputs, d_o.const_data_ptr(),
                                               data_or_null(d_after), workspace.const_data_ptr(), call_gradients);
        return {gradients.tokens.qkv, gradients.tokens.a, gradients.tokens.b, gradients.a_log,
                gradients.dt_bias,    d_before,           at::Tensor(),       at::Tensor(),
                at::Tensor(),         at::Tensor(),       at::Tensor()};
    }
};

tensor_list rule_on_cpu(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                        const std::optional<at::Tensor>& before, const std::optional<at::Tensor>& starts,
                        const KimiDeltaShape& shape) {
    return KimiDeltaRule::apply(tokens.qkv, tokens.a, tokens.b, a_log, dt_bias, before, starts, shape.heads,
                                shape.head_dim, shape.activation, shape.lower_bound);
}

/// On CPUs: continues from `state` and overwrites it.
at::Tensor continue_on_cpu(KimiDeltaCall call, const at::Tensor& like, at::Tensor& state) {
    const at::Tensor o = call.make_output(like);
    // Every head reads its initial state before it writes the final one.
    call.inputs.initial_state = state.const_data_ptr<float>();
    kernels::kimi_delta_attention_forward(call.shape, call.options, call.inputs,
                                          {o.data_ptr(), state.data_ptr<float>()}, nullptr);
    return o;
}

/// g [batch, time, heads, dim] of raw gates a, with the formulas of kernels/kimi_delta_attention.
at::Tensor log_decays(const at::Tensor& a, const at::Tensor& a_log, const at::Tensor& dt_bias,
                      const KimiDeltaShape& shape) {
    const at::Tensor z = (a + dt_bias).unflatten(-1, {shape.heads, shape.head_dim}),
                     rate = a_log.exp().unsqueeze(-1).to(z.scalar_type());
    return shape.lower_bound < 0 ? shape.lower_bound * at::sigmoid(rate * z) : -rate * at::softplus(z);
}

at::Tensor rule_by_operations(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                              const KimiDeltaShape& shape, at::Tensor* state, const Documents* documents = nullptr) {
    const auto type = tokens.qkv.scalar_type(), math_type = type == at::kDouble ? at::kDouble : at::kFloat;
    const auto parts = at::split(tokens.qkv, shape.width(), -1);
    const auto heads = [&](size_t i) {
        const at::Tensor t = parts[i].to(math_type).unflatten(-1, {shape.heads, shape.head_dim});
        return shape.activation ? at::silu(t) : t;
    };
    const auto unit = [](const at::Tensor& t) { return t * at::rsqrt(t.square().sum(-1, true) + 1e-6); };
    at::Tensor none, g = log_decays(tokens.a.to(math_type), a_log, dt_bias, shape);
    if (documents) g = documents->forgetting(g);
    return kimi_delta_rule_chunked(unit(heads(0)) / std::sqrt(double(shape.head_dim)), unit(heads(1)), heads(2), g,
                                   at::sigmoid(tokens.b.to(math_type)), state ? *state : none)
        .to(type);
}

}  // namespace

at::Tensor kimi_delta_rule(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                           const KimiDeltaShape& shape, at::Tensor* state) {
    if (runs_on_cuda_kernels(tokens, shape)) return kimi_delta_rule_on_cuda(tokens, a_log, dt_bias, shape, {}, state);
    if (!runs_on_cpu_kernels(tokens.qkv)) return rule_by_operations(tokens, a_log, dt_bias, shape, state);
    if (!state) return rule_on_cpu(tokens, a_log, dt_bias, std::nullopt, std::nullopt, shape)[0];
    const KimiDeltaTokens rows = collapsible(tokens);
    return continue_on_cpu(KimiDeltaCall(rows, a_log, dt_bias, shape), tokens.qkv, *state);
}

MixedPiece kimi_delta_rule_of_piece(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                                    const KimiDeltaShape& shape, const at::Tensor& before,
                                    const DocumentsOfPiece* documents) {
    const bool on_gpu = runs_on_cuda_kernels(tokens, shape);
    if (on_gpu || runs_on_cpu_kernels(tokens.qkv))
        return mix_packed(documents, before, [&](const at::Tensor& state, const at::Tensor& starts) -> MixedPiece {
            if (on_gpu) return kimi_delta_rule_of_piece_on_cuda(tokens, a_log, dt_bias, shape, starts, state);
            const tensor_list both = rule_on_cpu(tokens, a_log, dt_bias, state, if_defined(starts), shape);
            return {both[0], both[1]};
        });
    at::Tensor state = before;
    const at::Tensor o =
        rule_by_operations(tokens, a_log, dt_bias, shape, &state, documents ? &documents->own() : nullptr);
    return {o, state};
}

at::Tensor kimi_delta_rule_of_documents(const KimiDeltaTokens& tokens, const at::Tensor& a_log,
                                        const at::Tensor& dt_bias, const KimiDeltaShape& shape,
                                        const Documents& documents) {
    const at::Tensor& starts = documents.starts();
    if (runs_on_cuda_kernels(tokens, shape))
        return kimi_delta_rule_on_cuda(tokens, a_log, dt_bias, shape, starts, nullptr);
    if (runs_on_cpu_kernels(tokens.qkv)) return rule_on_cpu(tokens, a_log, dt_bias, std::nullopt, starts, shape)[0];
    return rule_by_operations(tokens, a_log, dt_bias, shape, nullptr, &documents);
}

at::Tensor kimi_delta_step(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                           const KimiDeltaShape& shape, const at::Tensor& states, const at::Tensor& slots) {
    const bool on_gpu = runs_on_cuda_kernels(tokens, shape);
    if (!on_gpu && !runs_on_cpu_kernels(tokens.qkv)) {
        const at::Tensor places = slots.to(at::kLong);
        at::Tensor state = states.index_select(0, places);
        const at::Tensor o = rule_by_operations(tokens, a_log, dt_bias, shape, &state);
        states.index_copy_(0, places, state);
        return o;
    }
    const KimiDeltaTokens rows = collapsible(tokens);
    KimiDeltaCall call(rows, a_log, dt_bias, shape);
    call.inputs.slot = slots.const_data_ptr<int32_t>();
    const at::Tensor o = call.make_output(tokens.qkv);
    if (on_gpu)
        kimi_delta_decode_on_cuda(call, states, o);
    else
        kernels::kimi_delta_attention_decode(call.shape, call.options, call.inputs, states.data_ptr<float>(),
                                             o.data_ptr());
    return o;
}

}  // namespace amalgam
