// SPDX-License-Identifier: Apache-2.0
// TrainedWeights of a sharded model: each rank updates its own shard of masters and moments.
#pragma once

#include "optimizer/trained_weights.h"

namespace amalgam {

/// Collective over the model's ranks.
std::unique_ptr<TrainedWeights> make_sharded_weights(ShardedModel& shards, const std::vector<Parameter*>& parameters,
                                                     const TrainedWeightsSetup& setup);

}  // namespace amalgam
