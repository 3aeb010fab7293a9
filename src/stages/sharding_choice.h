// SPDX-License-Identifier: Apache-2.0
// How the models of a stage are spread over ranks: what the job says, or what memory asks for.
#pragma once

#include <string>

#include "estimate/job_estimate.h"
#include "sharding/sharded_model.h"
#include "stages/compute.h"

namespace amalgam {

struct ShardingChoice {
    ShardingStrategy strategy = ShardingStrategy::none;
    std::string reason;  // for the log
};

/// For a stage that the job runs, its models shared by `ranks`. `memory`: bytes that a rank can take; 0: not known. The
/// job's own choice counts first; else the estimate's, which is the first strategy that fits. Throws nothing: whether
/// it truly fits, the run will tell.
ShardingChoice choose_sharding(const Job& job, const StageEstimate& stage, int64_t ranks, double memory);

/// The job's options for that strategy.
ShardingOptions sharding_options(const ShardingJob& job, ShardingStrategy strategy);

/// Candidates out of `most` that one group of ranks has memory for at the same time, for an estimate of the score
/// stage; at least 1. `memory`: bytes that a rank can take, of which a tenth is left free.
int64_t candidates_that_fit(const StageEstimate& score, ShardingStrategy strategy, double memory, int64_t most);

/// Bytes that a rank can take: all of its GPU's, or its share of what is free on the node; 0: not known. The least of
/// all ranks of `world`; `node`: those that share this host. Collective.
double memory_of_a_rank(const Compute& compute, const Communicator& world, const Communicator& node);

}  // namespace amalgam
