// SPDX-License-Identifier: Apache-2.0
#include "stages/sharding_choice.h"

#include <algorithm>

#include "system/available_memory.h"
#include "system/error.h"
#ifdef AMALGAM_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

namespace amalgam {
namespace {

constexpr double gib = double(1 << 30);

const ShardingEstimate& estimate_of(const StageEstimate& stage, ShardingStrategy strategy) {
    for (const ShardingEstimate& estimate : stage.shardings)
        if (estimate.strategy == strategy) return estimate;
    return stage.shardings.back();
}

}  // namespace

ShardingChoice choose_sharding(const Job& job, const StageEstimate& stage, int64_t ranks, double memory) {
    if (ranks == 1) return {ShardingStrategy::none, "one rank trains a model"};
    if (const auto strategy = chosen_strategy(job.sharding.strategy)) return {*strategy, "as the job says"};
    if (memory <= 0) return {ShardingStrategy::none, "the memory of a rank is not known"};
    const ShardingEstimate &chosen = stage.shardings.at(stage.automatic), &whole = stage.shardings.front();
    return {chosen.strategy,
            text("auto: about ", chosen.memory.total() / gib, " GiB of a rank's ", memory / gib,
                 stage.automatic == 0 ? std::string() : text(", unsharded ", whole.memory.total() / gib))};
}

ShardingOptions sharding_options(const ShardingJob& job, ShardingStrategy strategy) {
    ShardingOptions options;
    options.strategy = strategy;
    options.gather_ahead = job.gather_ahead;
    options.reduce_in_bfloat16 = job.reduce == ReductionPrecision::bfloat16;
    return options;
}

int64_t candidates_that_fit(const StageEstimate& score, ShardingStrategy strategy, double memory, int64_t most) {
    const RankMemory& m = estimate_of(score, strategy).memory;
    const double another = m.weights + m.masters + m.moments + m.gradients, room = 0.9 * memory - m.total();
    if (room <= 0 || another <= 0) return 1;
    return std::clamp(1 + int64_t(room / another), int64_t{1}, std::max<int64_t>(1, most));
}

double memory_of_a_rank(const Compute& compute, const Communicator& world, const Communicator& node) {
    double bytes = 0;
#ifdef AMALGAM_CUDA
    if (compute.device.is_cuda()) bytes = double(at::cuda::getDeviceProperties(compute.device.index())->totalGlobalMem);
#endif
    if (compute.device.is_cpu()) bytes = double(available_memory()) / double(node.size());
    return world.min(bytes);
}

}  // namespace amalgam
