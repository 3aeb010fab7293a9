// SPDX-License-Identifier: Apache-2.0
// Tensors as the kernels see them: element type, rows with a stride, number of threads.
#pragma once

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "kernels/element_type.h"
#include "kernels/rows.h"

namespace amalgam {

/// True if the CPU kernels can take this tensor.
inline bool runs_on_cpu_kernels(const at::Tensor& t) {
    return t.device().is_cpu() && (t.scalar_type() == at::kFloat || t.scalar_type() == at::kBFloat16);
}

inline kernels::ElementType element_type(const at::Tensor& t) {
    return t.scalar_type() == at::kBFloat16 ? kernels::ElementType::bfloat16 : kernels::ElementType::float32;
}

/// t [..., width] or [..., heads, width] whose leading dimensions (but the last `inner`) collapse to tokens at one
/// stride. Anything else is copied first: pass the result of collapsible().
inline at::Tensor collapsible(const at::Tensor& t, int64_t inner) {
    int64_t expected = 1;
    for (int64_t d = t.dim() - 1; d >= t.dim() - inner; --d) {
        if (t.size(d) != 1 && t.stride(d) != expected) return t.contiguous();
        expected *= t.size(d);
    }
    for (int64_t d = t.dim() - inner - 2; d >= 0; --d)
        if (t.size(d) != 1 && t.stride(d) != t.stride(d + 1) * t.size(d + 1)) return t.contiguous();
    return t;
}

/// Stride between tokens of a collapsible tensor.
inline int64_t token_stride(const at::Tensor& t, int64_t inner) {
    return t.stride(t.dim() - inner - 1);
}

inline kernels::ConstRows const_rows(const at::Tensor& t, int64_t inner) {
    return {t.const_data_ptr(), token_stride(t, inner)};
}
inline kernels::Rows rows(const at::Tensor& t, int64_t inner) {
    return {t.data_ptr(), token_stride(t, inner)};
}

/// For arguments of autograd functions, which must be defined tensors or none at all.
inline std::optional<at::Tensor> if_defined(const at::Tensor& t) {
    return t.defined() ? std::optional(t) : std::nullopt;
}

/// Will a backward pass ask for the gradient of any of these? Undefined ones have none.
inline bool wants_gradient(std::initializer_list<at::Tensor> inputs) {
    return at::GradMode::is_enabled() && std::any_of(inputs.begin(), inputs.end(), [](const at::Tensor& t) {
               return t.defined() && t.requires_grad();
           });
}

/// Of a contiguous fp32 tensor that a kernel can do without.
inline float* data_or_null(const at::Tensor& t) {
    return t.defined() ? t.data_ptr<float>() : nullptr;
}

inline int kernel_threads() {
    return at::get_num_threads();
}

}  // namespace amalgam
