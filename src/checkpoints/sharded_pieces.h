// SPDX-License-Identifier: Apache-2.0
// What a rank with shards has of the tensors of a checkpoint.
#pragma once

#include "checkpoints/tensor_piece.h"
#include "sharding/sharded_model.h"

namespace amalgam {

/// Appends the named tensors of `parameter` under `folder`, each with the elements that `shard`, laid out like the
/// shard of `flat`, has of it; with none unless `mine`. The values are views.
void add_shard_pieces(const std::string& folder, const Parameter& parameter, const FlatParameters& flat,
                      const at::Tensor& shard, bool mine, std::vector<TensorPiece>& result);

/// All weights of a trainable model, in the order of its parameters: the same tensors on every rank.
std::vector<TensorPiece> weight_pieces(ShardedModel& model, bool mine);

}  // namespace amalgam
