// SPDX-License-Identifier: Apache-2.0
// Causal attention of tokens that follow others, with gradients for both.
#pragma once

#include <ATen/core/Tensor.h>

namespace amalgam {

/// q [batch, heads, time, dim] sees all keys before, k_before [batch, kv heads, before, dim], and causally those of its
/// own tokens, k [batch, kv heads, time, dim]; values likewise -> as q. Any number of keys before, also none. Memory
/// grows with time + before, not with their product. Only where has_attention_after.
at::Tensor attention_after(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& k_before,
                           const at::Tensor& v_before);

/// On CPUs, and on GPUs where LibTorch takes these operands of causal attention to cuDNN or flash attention (bf16).
bool has_attention_after(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace amalgam
