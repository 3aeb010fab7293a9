// SPDX-License-Identifier: Apache-2.0
#include "operations/products.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstdlib>
#include <string>

#include "kernels/isa/isa.h"
#include "operations/few_rows_map.h"
#include "operations/kernel_views.h"

namespace amalgam {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::tensor_list;

/// oneDNN, which multiplies for LibTorch, may be told to use older instructions than the CPU has.
bool is_held_down_by(const char* variable) {
    const char* value = std::getenv(variable);
    std::string name = value ? value : "";
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return char(std::tolower(c)); });
    for (const char* older : {"sse41", "avx", "avx2", "avx2_vnni", "avx2_vnni_2", "avx512_core", "avx512_core_vnni"})
        if (name == older) return true;
    return false;
}

/// fp32 numbers of a block: 16 MiB, that stay in a cache shared by the cores or nearly so.
constexpr int64_t block_numbers = int64_t{4} << 20;

/// In the order that `t` lies in memory: a copy that transposes takes longer than the product.
at::Tensor widened(const at::Tensor& t) {
    const bool transposed = t.stride(0) == 1 && t.stride(1) != 1;
    return transposed ? t.t().to(at::kFloat).t() : t.to(at::kFloat);
}

/// result (+)= product.
void keep(at::Tensor result, const at::Tensor& product, bool add) {
    if (add)
        result.add_(product);
    else
        result.copy_(product);
}

/// What is largest of m, n and k is cut: no operand is widened whole but the smaller ones.
void multiply_widened(const at::Tensor& result, const at::Tensor& a, const at::Tensor& b, bool add) {
    const int64_t m = a.size(0), n = b.size(1), k = a.size(1), largest = std::max({m, n, k});
    const int64_t block = std::max<int64_t>(64, block_numbers / (m + n + k - largest));
    const auto for_each_block = [&](const auto& work) {
        for (int64_t first = 0; first < largest; first += block) work(first, std::min(block, largest - first));
    };
    if (largest == m) {
        const at::Tensor whole = widened(b);
        for_each_block([&](int64_t first, int64_t count) {
            keep(result.narrow(0, first, count), at::mm(widened(a.narrow(0, first, count)), whole), add);
        });
    } else if (largest == n) {
        const at::Tensor whole = widened(a);
        for_each_block([&](int64_t first, int64_t count) {
            keep(result.narrow(1, first, count), at::mm(whole, widened(b.narrow(1, first, count))), add);
        });
    } else {
        at::Tensor sum = at::zeros({m, n}, at::kFloat);
        for_each_block([&](int64_t first, int64_t count) {
            sum.addmm_(widened(a.narrow(1, first, count)), widened(b.narrow(0, first, count)));
        });
        keep(result, sum, add);
    }
}

/// Below it widening the weights takes longer than LibTorch's slow product (decoding, one token at a time).
constexpr int64_t few_rows = 4;

struct WidenedMap : Function<WidenedMap> {
    static at::Tensor forward(AutogradContext* ctx, const at::Tensor& input, const at::Tensor& weight,
                              const std::optional<at::Tensor>& bias) {
        const at::Tensor x = input.reshape({-1, weight.size(1)});
        auto sizes = input.sizes().vec();
        sizes.back() = weight.size(0);
        const at::Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
        multiply_widened(y, x, weight.t(), false);
        if (bias) y.add_(*bias);
        ctx->save_for_backward({x, weight});
        ctx->saved_data["bias"] = bias.has_value();
        return y.view(sizes);
    }

    static tensor_list backward(AutogradContext* ctx, tensor_list gradients) {
        const auto saved = ctx->get_saved_variables();
        const at::Tensor &x = saved[0], &weight = saved[1];
        at::Tensor dy = gradients[0].reshape({-1, weight.size(0)});
        if (dy.numel() <= 4 * block_numbers) dy = dy.to(at::kFloat);  // once for both products
        at::Tensor dx, dw, db;
        if (ctx->needs_input_grad(0)) {
            auto sizes = gradients[0].sizes().vec();
            sizes.back() = weight.size(1);
            dx = at::empty(sizes, x.options());
            multiply_widened(dx.view({-1, weight.size(1)}), dy, weight, false);
        }
        if (ctx->needs_input_grad(1)) {
            dw = at::empty_like(weight);
            multiply_widened(dw, dy.t(), x, false);
        }
        if (ctx->saved_data["bias"].toBool()) db = dy.sum(0).to(x.scalar_type());
        return {dx, dw, db};
    }
};

}  // namespace

bool cpu_multiplies_bfloat16() {
    static const bool answer = kernels::resolve_isa(kernels::Isa::automatic) >= kernels::Isa::avx512_bf16 &&
                               !is_held_down_by("ONEDNN_MAX_CPU_ISA") && !is_held_down_by("DNNL_MAX_CPU_ISA");
    return answer;
}

bool is_widened(const at::Tensor& t) {
    return t.is_cpu() && t.scalar_type() == at::kBFloat16 && !cpu_multiplies_bfloat16();
}

at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
    const int64_t rows = x.numel() / std::max<int64_t>(1, weight.size(1));
    if (at::Tensor y = few_rows_map(x, weight, bias); y.defined()) return y;
    if (is_widened(x) && rows >= few_rows) return WidenedMap::apply(x, weight, if_defined(bias));
    return at::linear(x, weight, bias);
}

void multiply_into(const at::Tensor& result, const at::Tensor& a, const at::Tensor& b, bool add) {
    at::Tensor target = result;
    if (is_widened(a))
        multiply_widened(target, a, b, add);
    else if (add)
        target.add_(at::mm(a, b));
    else
        at::mm_out(target, a, b);
}

}  // namespace amalgam
