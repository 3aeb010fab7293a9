// SPDX-License-Identifier: Apache-2.0
// Internal to the rule: the kernels' arguments, and what a forward pass keeps for its backward pass on either device.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "kernels/kimi_delta_attention/kimi_delta_attention.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"
#include "operations/gated_norm_call.h"

namespace amalgam {

/// With rows that kernels can take.
inline KimiDeltaTokens collapsible(const KimiDeltaTokens& tokens) {
    return {collapsible(tokens.qkv, 1), collapsible(tokens.a, 1), collapsible(tokens.b, 1)};
}

struct KimiDeltaCall {
    kernels::KimiDeltaAttentionShape shape;
    kernels::KimiDeltaAttentionOptions options;
    kernels::KimiDeltaAttentionInputs inputs;

    /// Of collapsible tokens. `starts`: where documents begin (mixers/documents.h); undefined: every sequence is one.
    KimiDeltaCall(const KimiDeltaTokens& tokens, const at::Tensor& a_log, const at::Tensor& dt_bias,
                  const KimiDeltaShape& s, const at::Tensor& starts = {}) {
        shape = {tokens.qkv.size(0), tokens.qkv.size(1), s.heads, s.head_dim, s.head_dim};
        if (starts.defined()) {
            shape.time *= shape.batch;
            shape.batch = 1;
            shape.packed = starts.size(0) - 1;
        }
        options.element_type = element_type(tokens.qkv);
        options.silu = s.activation;
        options.lower_bound = float(s.lower_bound);
        options.threads = kernel_threads();
        const auto part = [&](int64_t i) {
            return kernels::ConstRows{at_column(tokens.qkv, i * s.width()), token_stride(tokens.qkv, 1)};
        };
        inputs = {part(0),
                  part(1),
                  part(2),
                  const_rows(tokens.a, 1),
                  const_rows(tokens.b, 1),
                  a_log.const_data_ptr<float>(),
                  dt_bias.const_data_ptr<float>(),
                  nullptr,
                  starts.defined() ? starts.const_data_ptr<int64_t>() : nullptr};
    }

    /// `like`: of the tokens.
    at::Tensor make_output(const at::Tensor& like) const {
        return at::empty({like.size(0), like.size(1), shape.heads, shape.value_dim}, like.options());
    }
};

/// Gradients of everything that the rule read, each contiguous.
struct KimiDeltaGradients {
    KimiDeltaTokens tokens;
    at::Tensor a_log, dt_bias;

    KimiDeltaGradients(const KimiDeltaTokens& like, const at::Tensor& a_log, const at::Tensor& dt_bias)
        : tokens{made_like(like.qkv), made_like(like.a), made_like(like.b)},
          a_log(at::empty_like(a_log)),
          dt_bias(at::empty_like(dt_bias)) {}

    kernels::KimiDeltaAttentionGradients call(const KimiDeltaShape& s) const {
        const auto part = [&](int64_t i) {
            return kernels::Rows{at_column(tokens.qkv, i * s.width()), token_stride(tokens.qkv, 1)};
        };
        return {part(0),
                part(1),
                part(2),
                rows(tokens.a, 1),
                rows(tokens.b, 1),
                a_log.data_ptr<float>(),
                dt_bias.data_ptr<float>()};
    }

  private:
    static at::Tensor made_like(const at::Tensor& t) { return at::empty(t.sizes(), t.options()); }
};

/// What the backward pass reads.
struct KimiDeltaSaved {
    KimiDeltaTokens tokens;
    at::Tensor a_log, dt_bias, workspace;
    KimiDeltaShape shape;
    at::Tensor before = {};  // the states that entered; undefined: zeros
    at::Tensor starts = {};  // as KimiDeltaCall has it

    void keep_in(torch::autograd::AutogradContext* ctx) const {
        ctx->save_for_backward({tokens.qkv, tokens.a, tokens.b, a_log, dt_bias, workspace, before, starts});
        ctx->saved_data["heads"] = shape.heads;
        ctx->saved_data["head_dim"] = shape.head_dim;
        ctx->saved_data["activation"] = shape.activation;
        ctx->saved_data["lower_bound"] = shape.lower_bound;
    }

    static KimiDeltaSaved kept_in(torch::autograd::AutogradContext* ctx) {
        const auto saved = ctx->get_saved_variables();
        return {{saved[0], saved[1], saved[2]},
                saved[3],
                saved[4],
                saved[5],
                {ctx->saved_data["heads"].toInt(), ctx->saved_data["head_dim"].toInt(),
                 ctx->saved_data["activation"].toBool(), ctx->saved_data["lower_bound"].toDouble()},
                saved[6],
                saved[7]};
    }
};

}  // namespace amalgam
