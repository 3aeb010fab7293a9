// SPDX-License-Identifier: Apache-2.0
// Which of LibTorch's implementations computes softmax attention on a GPU. cuDNN's is preferred; LibTorch chooses
// another one without a word where it cannot take the operands, so its choice is asked for and logged.
#pragma once

#include <ATen/SDPBackend.h>
#include <ATen/core/Tensor.h>

namespace amalgam {

/// To be called before causal attention on a GPU with these operands, [batch, heads, time, dim]. Prefers cuDNN's, and
/// logs which implementation will take them, once for each kind of operands: a warning if it is another. Returns it.
at::SDPBackend choose_attention_backend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

}  // namespace amalgam
