// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/sharded_pieces.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {

void add_shard_pieces(const std::string& folder, const Parameter& parameter, const FlatParameters& flat,
                      const at::Tensor& shard, bool mine, std::vector<TensorPiece>& result) {
    const ShardPiece piece = flat.piece_of(parameter);
    for_each_named_piece(parameter, [&](const std::string& name, const std::vector<int64_t>& shape, int64_t first) {
        const int64_t elements = c10::multiply_integers(shape);
        const int64_t begin = std::clamp(piece.in_parameter, first, first + elements),
                      end = std::clamp(piece.in_parameter + piece.count, begin, first + elements);
        const int64_t count = mine ? end - begin : 0;
        // A shard that has nothing of the parameter gives an empty piece, a view of nothing that begins at 0.
        const int64_t in_shard = count > 0 ? piece.in_shard + begin - piece.in_parameter : 0;
        result.push_back({folder + name, shape, begin - first, shard.narrow(0, in_shard, count)});
    });
}

std::vector<TensorPiece> weight_pieces(ShardedModel& model, bool mine) {
    std::vector<TensorPiece> result;
    for (const Parameter& p : model.model().parameters().all())
        add_shard_pieces("/model/", p, model.flat_of(p), model.flat_of(p).shard(), mine, result);
    return result;
}

}  // namespace amalgam
