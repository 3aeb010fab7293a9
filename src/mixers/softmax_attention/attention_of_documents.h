// SPDX-License-Identifier: Apache-2.0
// Causal attention where sequences hold documents that are kept apart (mixers/documents.h).
#pragma once

#include "mixers/documents.h"

namespace amalgam {

/// q [batch, heads, time, dim], k and v [batch, kv heads, time, dim] -> as q. `window` as in ModelConfig. One call of
/// LibTorch's flash attention on GPUs in bf16, elsewhere a call for each document.
at::Tensor attend_within(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window);

}  // namespace amalgam
