// SPDX-License-Identifier: Apache-2.0
// Causal attention where sequences hold documents that are kept apart (mixers/documents.h). `window` as in ModelConfig.
// One call of LibTorch's flash attention on GPUs in bf16, elsewhere a call for each document.
#pragma once

#include "mixers/context_exchange.h"

namespace amalgam {

/// q [batch, heads, time, dim], k and v [batch, kv heads, time, dim] -> as q.
at::Tensor attend_within(const Documents& documents, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         int64_t window);

/// The same of a rank's piece of the sequences, whose queries see keys of earlier pieces where their document began
/// there. Each rank computes what its own queries see: later ranks have the more of it, the longer documents are.
at::Tensor attend_within(const DocumentsOfPiece& documents, const at::Tensor& q, const KeysAndValues& keys,
                         int64_t window);

}  // namespace amalgam
