// SPDX-License-Identifier: Apache-2.0
#include "operations/operations.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "operations/attention_backend.h"
#include "operations/kernel_calls.h"
#include "operations/kernel_views.h"
#include "operations/products.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// Tokens of a tensor whose last `inner` dimensions belong to one token.
int64_t tokens_of(const at::Tensor& t, int64_t inner) {
    int64_t count = 1;
    for (int64_t d = 0; d < t.dim() - inner; ++d) count *= t.size(d);
    return count;
}

struct RmsNorm : Function<RmsNorm> {
    /// x [..., width]: [tokens, heads, width] for the kernel where x is a view of heads inside tokens.
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight, double eps) {
        const int64_t inner = input.dim() == 4 ? 2 : 1;
        const at::Tensor x = collapsible(input, inner);
        const int64_t heads = inner == 2 ? x.size(2) : 1;
        at::Tensor y = at::empty(x.sizes(), x.options());
        at::Tensor rstd = at::empty({tokens_of(x, inner), heads}, x.options().dtype(at::kFloat));
        kernels::RmsNormForward call{};
        call.type = element_type(x);
        call.tokens = rstd.size(0);
        call.heads = heads;
        call.width = x.size(-1);
        call.epsilon = float(eps);
        call.x = const_rows(x, inner);
        call.weight = weight.const_data_ptr<float>();
        call.y = rows(y, inner);
        call.rstd = rstd.data_ptr<float>();
        run(x, call);
        ctx->save_for_backward({x, weight, rstd});
        return y;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &x = saved[0], &weight = saved[1], &rstd = saved[2];
        const int64_t inner = x.dim() == 4 ? 2 : 1;
        const at::Tensor dy = collapsible(gradients[0], inner);
        at::Tensor dx = at::empty(x.sizes(), x.options());
        at::Tensor dw = at::empty_like(weight);
        kernels::RmsNormBackward call{};
        call.type = element_type(x);
        call.tokens = rstd.size(0);
        call.heads = rstd.size(1);
        call.width = x.size(-1);
        call.y_gradient = const_rows(dy, inner);
        call.x = const_rows(x, inner);
        call.weight = weight.const_data_ptr<float>();
        call.rstd = rstd.const_data_ptr<float>();
        call.x_gradient = rows(dx, inner);
        call.weight_gradient = dw.data_ptr<float>();
        run(x, call);
        return {dx, dw, at::Tensor()};
    }
};

/// The norm of x + residual, and that sum.
struct AddRmsNorm : Function<AddRmsNorm> {
    static tensor_list forward(AutogradContext* ctx, const at::Tensor& first, const at::Tensor& second,
                               const at::Tensor& weight, double eps) {
        const at::Tensor x = collapsible(first, 1), residual = collapsible(second, 1);
        at::Tensor sum = at::empty(x.sizes(), x.options()), y = at::empty(x.sizes(), x.options());
        at::Tensor rstd = at::empty({tokens_of(x, 1)}, x.options().dtype(at::kFloat));
        kernels::RmsNormForward call{};
        call.type = element_type(x);
        call.tokens = rstd.size(0);
        call.width = x.size(-1);
        call.epsilon = float(eps);
        call.x = const_rows(x, 1);
        call.residual = const_rows(residual, 1);
        call.sum = rows(sum, 1);
        call.weight = weight.const_data_ptr<float>();
        call.y = rows(y, 1);
        call.rstd = rstd.data_ptr<float>();
        run(x, call);
        ctx->save_for_backward({sum, weight, rstd});
        return {sum, y};
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &sum = saved[0], &weight = saved[1], &rstd = saved[2];
        const at::Tensor dsum = collapsible(gradients[0], 1), dy = collapsible(gradients[1], 1);
        at::Tensor dx = at::empty(sum.sizes(), sum.options()), dw = at::empty_like(weight);
        kernels::RmsNormBackward call{};
        call.type = element_type(sum);
        call.tokens = rstd.size(0);
        call.width = sum.size(-1);
        call.y_gradient = const_rows(dy, 1);
        call.sum_gradient = const_rows(dsum, 1);
        call.x = const_rows(sum, 1);
        call.weight = weight.const_data_ptr<float>();
        call.rstd = rstd.const_data_ptr<float>();
        call.x_gradient = rows(dx, 1);
        call.weight_gradient = dw.data_ptr<float>();
        run(sum, call);
        return {dx, dx, dw, at::Tensor()};
    }
};

struct Swiglu : Function<Swiglu> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input) {
        const at::Tensor fused = collapsible(input, 1);
        const int64_t width = fused.size(-1) / 2;
        auto sizes = fused.sizes().vec();
        sizes.back() = width;
        at::Tensor y = at::empty(sizes, fused.options());
        kernels::SwigluForward call{};
        call.type = element_type(fused);
        call.tokens = tokens_of(fused, 1);
        call.width = width;
        call.gate = const_rows(fused.narrow(-1, 0, width), 1);
        call.up = const_rows(fused.narrow(-1, width, width), 1);
        call.y = rows(y, 1);
        run(fused, call);
        ctx->save_for_backward({fused});
        return y;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const at::Tensor fused = ctx->get_saved_variables()[0];
        const int64_t width = fused.size(-1) / 2;
        const at::Tensor dy = collapsible(gradients[0], 1);
        at::Tensor d = at::empty(fused.sizes(), fused.options());
        kernels::SwigluBackward call{};
        call.type = element_type(fused);
        call.tokens = tokens_of(fused, 1);
        call.width = width;
        call.y_gradient = const_rows(dy, 1);
        call.gate = const_rows(fused.narrow(-1, 0, width), 1);
        call.up = const_rows(fused.narrow(-1, width, width), 1);
        call.gate_gradient = rows(d.narrow(-1, 0, width), 1);
        call.up_gradient = rows(d.narrow(-1, width, width), 1);
        run(fused, call);
        return {d};
    }
};

struct Rotate : Function<Rotate> {
    static kernels::Rotary call_for(const at::Tensor& x, at::Tensor& y, const at::Tensor& cos, const at::Tensor& sin) {
        kernels::Rotary call{};
        call.type = element_type(x);
        call.tokens = tokens_of(x, 2);
        call.heads = x.size(-2);
        call.width = x.size(-1);
        call.positions = cos.size(0);
        call.cos = cos.const_data_ptr<float>();
        call.sin = sin.const_data_ptr<float>();
        call.x = const_rows(x, 2);
        call.y = rows(y, 2);
        return call;
    }

    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& cos,
                              const at::Tensor& sin) {
        const at::Tensor x = collapsible(input, 2);
        at::Tensor y = at::empty(x.sizes(), x.options());
        run_forward(x, call_for(x, y, cos, sin));
        ctx->save_for_backward({cos, sin});
        return y;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor dy = collapsible(gradients[0], 2);
        at::Tensor dx = at::empty(dy.sizes(), dy.options());
        run_backward(dy, call_for(dy, dx, saved[0], saved[1]));
        return {dx, at::Tensor(), at::Tensor()};
    }
};

struct GatedRmsNorm : Function<GatedRmsNorm> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& output, const std::optional<at::Tensor>& gate,
                              const std::optional<at::Tensor>& given_weight, double eps) {
        const at::Tensor o = collapsible(output, 2);
        const at::Tensor z = gate ? collapsible(*gate, 1) : at::Tensor(), weight = given_weight.value_or(at::Tensor());
        at::Tensor y = at::empty({o.size(0), o.size(1), o.size(2) * o.size(3)}, o.options());
        at::Tensor rstd = at::empty({tokens_of(o, 2), o.size(2)}, o.options().dtype(at::kFloat));
        kernels::GatedRmsNormForward call{};
        call.type = element_type(o);
        call.tokens = rstd.size(0);
        call.heads = o.size(2);
        call.width = o.size(3);
        call.epsilon = float(eps);
        call.o = const_rows(o, 2);
        if (z.defined()) call.z = const_rows(z, 1);
        if (weight.defined()) call.weight = weight.const_data_ptr<float>();
        call.y = rows(y, 1);
        call.rstd = rstd.data_ptr<float>();
        run(o, call);
        ctx->save_for_backward({o, z, weight, rstd});
        return y;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &o = saved[0], &z = saved[1], &weight = saved[2], &rstd = saved[3];
        const at::Tensor dy = collapsible(gradients[0], 1);
        at::Tensor d_o = at::empty(o.sizes(), o.options()), dz, dw;
        kernels::GatedRmsNormBackward call{};
        call.type = element_type(o);
        call.tokens = rstd.size(0);
        call.heads = o.size(2);
        call.width = o.size(3);
        call.y_gradient = const_rows(dy, 1);
        call.o = const_rows(o, 2);
        call.rstd = rstd.const_data_ptr<float>();
        call.o_gradient = rows(d_o, 2);
        if (z.defined()) {
            dz = at::empty(z.sizes(), z.options());
            call.z = const_rows(z, 1);
            call.z_gradient = rows(dz, 1);
        }
        if (weight.defined()) {
            dw = at::empty_like(weight);
            call.weight = weight.const_data_ptr<float>();
            call.weight_gradient = dw.data_ptr<float>();
        }
        run(o, call);
        return {d_o, dz, dw, at::Tensor()};
    }
};

/// y's first columns = convolution of x's, both [batch, time, columns]; x collapses to tokens.
kernels::SiluConvolutionForward convolution_call(const at::Tensor& x, const at::Tensor& weight, bool activation,
                                                 const at::Tensor& y) {
    kernels::SiluConvolutionForward call{};
    call.type = element_type(x);
    call.batch = x.size(0);
    call.time = x.size(1);
    call.channels = weight.size(0);
    call.taps = int(weight.size(1));
    call.silu = activation;
    call.x = const_rows(x, 1);
    call.weight = weight.const_data_ptr<float>();
    call.y = rows(y, 1);
    return call;
}

/// Columns from `channels` on, which no convolution changes.
void pass_on(const at::Tensor& from, const at::Tensor& to, int64_t channels) {
    const int64_t others = from.size(2) - channels;
    if (others > 0) to.narrow(2, channels, others).copy_(from.narrow(2, channels, others));
}

struct ShortConvolution : Function<ShortConvolution> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                              bool activation) {
        const at::Tensor x = collapsible(input, 1);
        at::Tensor y = at::empty(x.sizes(), x.options());
        run(x, convolution_call(x, weight, activation, y));
        pass_on(x, y, weight.size(0));
        ctx->save_for_backward({x, weight});
        ctx->saved_data["activation"] = activation;
        return y;
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &x = saved[0], &weight = saved[1];
        const at::Tensor dy = collapsible(gradients[0], 1);
        at::Tensor dx = at::empty(x.sizes(), x.options()), dw = at::empty_like(weight);
        kernels::SiluConvolutionBackward call{};
        call.type = element_type(x);
        call.batch = x.size(0);
        call.time = x.size(1);
        call.channels = weight.size(0);
        call.taps = int(weight.size(1));
        call.silu = ctx->saved_data["activation"].toBool();
        call.y_gradient = const_rows(dy, 1);
        call.x = const_rows(x, 1);
        call.weight = weight.const_data_ptr<float>();
        call.x_gradient = rows(dx, 1);
        call.weight_gradient = dw.data_ptr<float>();
        run(x, call);
        pass_on(dy, dx, weight.size(0));
        return {dx, dw, at::Tensor()};
    }
};

/// silu(gate) and friends in fp32 where the data is narrower.
at::Tensor widened(const at::Tensor& t) {
    return t.scalar_type() == at::kDouble ? t : t.to(at::kFloat);
}

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
    if (runs_on_kernels(x)) return RmsNorm::apply(x, weight, eps);
    return at::rms_norm(widened(x), {x.size(-1)}, weight, eps).to(x.scalar_type());
}

SumAndNorm add_rms_norm(const at::Tensor& x, const at::Tensor& residual, const at::Tensor& weight, double eps) {
    if (runs_on_kernels(x)) {
        const tensor_list both = AddRmsNorm::apply(x, residual, weight, eps);
        return {both[0], both[1]};
    }
    const at::Tensor sum = x + residual;
    return {sum, rms_norm(sum, weight, eps)};
}

at::Tensor swiglu(const at::Tensor& fused) {
    if (runs_on_kernels(fused)) return Swiglu::apply(fused);
    const auto halves = fused.chunk(2, -1);
    return at::silu(halves[0]) * halves[1];
}

at::Tensor rotate(const at::Tensor& x, const RotaryTables& tables) {
    if (runs_on_kernels(x)) return Rotate::apply(x, tables.cos, tables.sin);
    const auto wide = widened(x);
    const auto halves = wide.chunk(2, -1);
    const auto turned = at::cat({-halves[1], halves[0]}, -1);
    return (wide * tables.cos.unsqueeze(1) + turned * tables.sin.unsqueeze(1)).to(x.scalar_type());
}

at::Tensor rotate_rows(const at::Tensor& x, const RotaryTables& tables, const at::Tensor& positions) {
    // The rows of the batch stand where `rotate` wants the tokens of a sequence.
    const RotaryTables own = {tables.cos.index_select(0, positions), tables.sin.index_select(0, positions)};
    return rotate(x.transpose(0, 1), own).transpose(0, 1);
}

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    // The backward pass in bf16 takes 3 to 4 times as long where the CPU has no instructions for it.
    if (is_widened(q)) return causal_attention(widened(q), widened(k), widened(v)).to(q.scalar_type());
    const bool grouped = q.size(1) != k.size(1);
    // LibTorch's flash kernel aligns the causal mask to the last key; scaled_dot_product_attention aligns to the first.
    if (q.size(2) < k.size(2)) return std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v, 0.0, true));
    if (q.is_cuda()) choose_attention_backend(q, k, v);
    if (!grouped || !q.device().is_cpu())
        return at::scaled_dot_product_attention(q, k, v, {}, 0.0, true, std::nullopt, grouped);
    // The CPU's flash kernel takes equal numbers of heads only; without it all attention weights would be stored.
    const int64_t group = q.size(1) / k.size(1);
    auto cloned = [&](const at::Tensor& t) {
        return t.unsqueeze(2)
            .expand({t.size(0), t.size(1), group, t.size(2), t.size(3)})
            .reshape({t.size(0), q.size(1), t.size(2), t.size(3)});
    };
    return at::scaled_dot_product_attention(q, cloned(k), cloned(v), {}, 0.0, true);
}

bool has_causal_attention_to_more(const at::Tensor& q, const at::Tensor& k) {
    return q.is_cuda() && q.scalar_type() == at::kBFloat16 && q.size(-1) % 8 == 0 && q.size(-1) <= 256 &&
           q.size(2) < k.size(2) && !at::GradMode::is_enabled();
}

at::Tensor for_query_heads(const at::Tensor& t, int64_t heads) {
    return t.size(1) == heads ? t : t.repeat_interleave(heads / t.size(1), 1);
}

at::Tensor masked_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& mask) {
    if (is_widened(q)) return masked_attention(widened(q), widened(k), widened(v), mask).to(q.scalar_type());
    return at::scaled_dot_product_attention(q, k, v, mask);
}

at::Tensor gated_rms_norm(const at::Tensor& o, const at::Tensor& gate, const at::Tensor& weight, double eps) {
    if (!gate.defined() && !weight.defined()) return o.flatten(-2);
    if (runs_on_kernels(o)) return GatedRmsNorm::apply(o, if_defined(gate), if_defined(weight), eps);
    at::Tensor y = widened(o);
    if (weight.defined()) y = at::rms_norm(y, {y.size(-1)}, weight, eps);
    y = y.flatten(-2);
    if (gate.defined()) y = y * at::silu(widened(gate));
    return y.to(o.scalar_type());
}

at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation, at::Tensor* recent) {
    if (!recent && runs_on_kernels(x)) return ShortConvolution::apply(x, weight, activation);
    const int64_t width = weight.size(1), channels = weight.size(0);
    if (runs_on_kernels(x)) {
        const at::Tensor rows = collapsible(x, 1);
        at::Tensor y = at::empty(rows.sizes(), rows.options());
        kernels::SiluConvolutionForward call = convolution_call(rows, weight, activation, y);
        if (recent->defined())
            call.initial_state = recent->const_data_ptr();
        else
            *recent = at::empty({x.size(0), width - 1, channels}, x.options());
        call.final_state = recent->data_ptr();
        run(rows, call);
        pass_on(rows, y, channels);
        return y;
    }
    const at::Tensor before =
        recent && recent->defined() ? *recent : at::zeros({x.size(0), width - 1, channels}, x.options());
    const at::Tensor all = at::cat({before, x.narrow(2, 0, channels)}, 1);
    if (recent) *recent = all.narrow(1, all.size(1) - (width - 1), width - 1).clone();
    at::Tensor y = at::conv1d(widened(all).transpose(1, 2), weight.unsqueeze(1), {}, at::IntArrayRef{1},
                              at::IntArrayRef{0}, at::IntArrayRef{1}, channels)
                       .transpose(1, 2);
    if (activation) y = at::silu(y);
    return at::cat({y.to(x.scalar_type()), x.narrow(2, channels, x.size(2) - channels)}, 2);
}

at::Tensor short_convolution_step(const at::Tensor& x, const at::Tensor& weight, bool activation,
                                  const at::Tensor& recents, const at::Tensor& slots) {
    if (runs_on_kernels(x)) {
        const at::Tensor rows = collapsible(x, 1);
        at::Tensor y = at::empty(rows.sizes(), rows.options());
        kernels::SiluConvolutionForward call = convolution_call(rows, weight, activation, y);
        call.initial_state = recents.const_data_ptr();
        call.final_state = recents.data_ptr();
        call.slot = slots.const_data_ptr<int32_t>();
        run(rows, call);
        pass_on(rows, y, weight.size(0));
        return y;
    }
    const at::Tensor places = slots.to(at::kLong);
    at::Tensor recent = recents.index_select(0, places);
    const at::Tensor y = short_convolution(x, weight, activation, &recent);
    recents.index_copy_(0, places, recent);
    return y;
}

}  // namespace amalgam
