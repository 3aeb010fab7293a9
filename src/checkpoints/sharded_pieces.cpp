// SPDX-License-Identifier: Apache-2.0
#include "checkpoints/sharded_pieces.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace amalgam {

void add_shard_pieces(const std::string& folder, const Parameter& parameter, const FlatParameters& flat,
                      const at::Tensor& shard, bool mine, std::vector<TensorPiece>& result) {
    const ShardSlice slice = flat.slice_of(parameter);
    for_each_named_part(parameter, [&](const std::string& name, const std::vector<int64_t>& shape, int64_t first) {
        const int64_t elements = c10::multiply_integers(shape);
        const int64_t begin = std::clamp(slice.in_parameter, first, first + elements),
                      end = std::clamp(slice.in_parameter + slice.count, begin, first + elements);
        const int64_t count = mine ? end - begin : 0;
        // The slice that is not there begins at 0 of the parameter: an empty piece is a view of nothing.
        const int64_t in_shard = count > 0 ? slice.in_shard + begin - slice.in_parameter : 0;
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
