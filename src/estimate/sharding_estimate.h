// SPDX-License-Identifier: Apache-2.0
// Memory of a rank and the bytes it moves in a step, for every way of sharding a training stage over ranks, and which
// way `auto` takes. Sizes only. tests/training/memory_model_test.cpp compares it with what small runs allocate.
//
// Symbols: P trained parameters, W all parameters of the student (a stage may train a part), T of the teacher; B the
// largest block, O what is outside the blocks (embedding, final norm, head); b bytes of a number in the compute type, r
// of a gradient on its way (4, or 2 if reduced in bf16), N ranks that share a batch, S ranks that share the weights
// (none: 1, optimizer and full: N, hybrid: those of a node), m micro-batches of a rank in a step.
//
//              none        optimizer (ZeRO-2)   full, hybrid (ZeRO-3)
// weights      b W         b W                  -               compute copies; none of their own where b is 4 and S is
//                                                               1: the masters are computed with
// masters      4 W         4 W / S              4 W / S
// moments      8 P         8 P / S              8 P / S         AdamW's two, fp32
// gradients    4 P         4 P / S              4 P / S         fp32, + 8 P / S as integers in the deterministic mode
// gathered     -           4 (O + 2 B)          (b + 4)(O + 2 B)  weights of two blocks (one is computed,
//                                                               one is fetched) and of what is outside them, and
//                                                               their gradients
// teacher      b T         b T                  b (T / S + O)
// gathered in a step, received by a rank:
//              -           b W (S-1)/S          2 m b W (S-1)/S + m b T (S-1)/S   (forward and backward; ring)
// reduced in a step, sent by a rank:
//              8 P (N-1)/N m r P (S-1)/S        m r P (S-1)/S, hybrid + 2 r P / S (N/S - 1)/(N/S)
//
// Sources: Rajbhandari et al., "ZeRO" (arXiv 1910.02054), sections 3 and 7; Thakur et al. for the ring's (n - 1) / n.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "options/choices.h"

namespace amalgam {

/// Bytes of one rank, by what they are for.
struct RankMemory {
    double weights = 0, masters = 0, moments = 0, gradients = 0, gathered = 0, activations = 0, logits = 0, teacher = 0;

    double total() const { return weights + masters + moments + gradients + gathered + activations + logits + teacher; }
};

/// Sizes of a training stage that do not depend on sharding.
struct StageSizes {
    double trained = 0, student = 0, teacher = 0;   // parameters
    double block = 0, outside = 0;                  // parameters: the largest block, and all that is in no block
    double trained_block = 0, trained_outside = 0;  // of these, parameters that are trained
    double compute_bytes = 4, reduce_bytes = 4;     // of a number
    bool deterministic = false;
    double activation_bytes = 0, logit_bytes = 0;
    double micro_batches = 1;  // of a rank in a step
};

struct ShardingEstimate {
    ShardingStrategy strategy = ShardingStrategy::none;
    RankMemory memory;
    double gathered_per_step = 0, reduced_per_step = 0;  // bytes received, sent by a rank
};

/// For `ranks` that share the batches, `ranks_per_node` of them on a node.
ShardingEstimate estimate_sharding(ShardingStrategy strategy, const StageSizes& stage, int64_t ranks,
                                   int64_t ranks_per_node);

/// All that make sense, in the order of what they move: none; with several ranks optimizer; with several nodes hybrid;
/// full.
std::vector<ShardingEstimate> estimate_all_shardings(const StageSizes& stage, int64_t ranks, int64_t ranks_per_node);

/// What `sharding.strategy: auto` takes: the first that leaves a tenth of `memory_per_rank` free (allocators and
/// libraries need some); the last if none does. none if the memory is not known (0).
const ShardingEstimate& choose_sharding(const std::vector<ShardingEstimate>& possible, double memory_per_rank);

}  // namespace amalgam
