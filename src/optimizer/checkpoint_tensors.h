// SPDX-License-Identifier: Apache-2.0
// What a checkpoint holds of a model that this rank has whole.
#pragma once

#include "checkpoints/tensor_piece.h"
#include "model/causal_lm.h"
#include "optimizer/adamw.h"

namespace amalgam {

/// All tensors of a checkpoint, as views of the masters and, with an optimizer, of its moments.
std::vector<TensorPiece> checkpoint_tensors(CausalLM& model, AdamW* optimizer);

}  // namespace amalgam
