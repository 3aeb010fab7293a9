// SPDX-License-Identifier: Apache-2.0
#include "estimate/sharding_estimate.h"

#include <algorithm>

#include "system/error.h"

namespace amalgam {

namespace {

/// Share of the data that a ring moves through each of n ranks.
double ring(double n) {
    return (n - 1) / n;
}

}  // namespace

ShardingEstimate estimate_sharding(ShardingStrategy strategy, const StageSizes& stage, int64_t ranks,
                                   int64_t ranks_per_node) {
    const bool none = strategy == ShardingStrategy::none, optimizer = strategy == ShardingStrategy::optimizer;
    const double all = double(ranks), node = double(std::min(ranks, ranks_per_node));
    const double shards = none ? 1 : strategy == ShardingStrategy::hybrid ? node : all;
    const double compute = stage.compute_bytes;
    const double weights = stage.outside + 2 * stage.block, gradients = stage.trained_outside + 2 * stage.trained_block;

    ShardingEstimate result{.strategy = strategy};
    RankMemory& memory = result.memory;
    memory.masters = 4 * stage.student / shards;
    memory.moments = 8 * stage.trained / shards;
    memory.gradients = (stage.deterministic ? 12 : 4) * stage.trained / shards;
    memory.activations = stage.activation_bytes;
    memory.logits = stage.logit_bytes;
    if (none || optimizer) {
        memory.weights = none && compute == 4 ? 0 : compute * stage.student;
        memory.gathered = none ? 0 : 4 * gradients;
        memory.teacher = compute * stage.teacher;
    } else {
        memory.gathered = compute * weights + 4 * gradients;
        memory.teacher = stage.teacher > 0 ? compute * (stage.teacher / shards + stage.outside) : 0;
    }

    if (none) {
        result.reduced_per_step = 2 * 4 * stage.trained * ring(all);
        return result;
    }
    const double gathers_of_student = optimizer ? 1 : 2 * stage.micro_batches;
    const double gathers_of_teacher = optimizer ? 0 : stage.micro_batches;
    // The teacher's embedding and head are gathered once and stay.
    const double teacher_blocks = std::max(0.0, stage.teacher - stage.outside);
    result.gathered_per_step =
        compute * ring(shards) * (gathers_of_student * stage.student + gathers_of_teacher * teacher_blocks);
    result.reduced_per_step = stage.micro_batches * stage.reduce_bytes * stage.trained * ring(shards);
    if (strategy == ShardingStrategy::hybrid)
        result.reduced_per_step += 2 * stage.reduce_bytes * stage.trained / shards * ring(all / shards);
    return result;
}

std::vector<ShardingEstimate> estimate_all_shardings(const StageSizes& stage, int64_t ranks, int64_t ranks_per_node) {
    std::vector<ShardingStrategy> possible = {ShardingStrategy::none};
    if (ranks > 1) possible.push_back(ShardingStrategy::optimizer);
    if (ranks > ranks_per_node && ranks_per_node > 1) possible.push_back(ShardingStrategy::hybrid);
    if (ranks > 1) possible.push_back(ShardingStrategy::full);
    std::vector<ShardingEstimate> estimates;
    for (const ShardingStrategy strategy : possible)
        estimates.push_back(estimate_sharding(strategy, stage, ranks, ranks_per_node));
    return estimates;
}

const ShardingEstimate& choose_sharding(const std::vector<ShardingEstimate>& possible, double memory_per_rank) {
    if (memory_per_rank <= 0) return possible.front();
    for (const ShardingEstimate& estimate : possible)
        if (estimate.memory.total() <= 0.9 * memory_per_rank) return estimate;
    return possible.back();
}

}  // namespace amalgam
