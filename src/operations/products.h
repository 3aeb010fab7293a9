// SPDX-License-Identifier: Apache-2.0
// Matrix products of models. They are LibTorch's, but for bf16 on CPUs without bf16 instructions, where its products
// take 3 to 20 times as long as in fp32: there blocks of the operands are widened to fp32, multiplied in fp32 and
// rounded once. Widening costs time, so that fp32 is at least as fast there; weights take half the memory.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// Whether this CPU has instructions for bf16 products (AVX512_BF16, AMX) and LibTorch and the kernels may use them:
/// AMALGAM_ISA and ONEDNN_MAX_CPU_ISA hold them down. The same for the life of a process.
bool cpu_multiplies_bfloat16();

/// Whether products of `t` are computed from operands widened to fp32.
bool is_widened(const at::Tensor& t);

/// x weight^T + bias, x [..., in], weight [out, in], bias [out] or undefined. Differentiable. In steps of generation by
/// few_rows_map.h.
at::Tensor linear_map(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias = {});

/// result = a b, or result += a b. a [m, k] and b [k, n] of one type; result [m, n] may be wider. Not differentiable.
void multiply_into(const at::Tensor& result, const at::Tensor& a, const at::Tensor& b, bool add = false);

}  // namespace amalgam
