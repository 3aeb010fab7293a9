// SPDX-License-Identifier: Apache-2.0
// How a model judges given continuations of given contexts. One forward pass over context and continuation gives both
// the log-likelihood and what greedy decoding would do: it gives exactly the continuation if, and only if, every token
// of it is the most likely one after those before it. So no token is ever generated for that.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/causal_lm.h"

namespace amalgam {

struct Continuation {
    std::span<const int32_t> tokens;  // the context, then the continuation
    int64_t context = 0;              // tokens of the context, at least 1
};

/// A batch in one tensor; shorter continuations are padded behind all that is looked at, and no model here looks ahead.
struct ContinuationBatch {
    at::Tensor tokens;                     // int64 [batch, longest], CPU; longest 1 if the batch is empty
    std::vector<int64_t> places, targets;  // of the predicted tokens: where in tokens.flatten(), and which
    std::vector<size_t> rows;              // of each place
};

/// The first is the longest.
ContinuationBatch lay_out(std::span<const Continuation> batch);

struct Judgement {
    double loglikelihood = 0.0;  // of the continuation, nat: the sum over its tokens
    bool greedy = true;          // every token of the continuation is the most likely one
};

/// The judgement of each continuation of a batch, in one pass. The first is the longest. The batch may be empty
/// (weights_on_demand.h). With `context`, whose ranks all have the batch: of what this rank's piece predicts alone.
std::vector<Judgement> judge_continuations(const CausalLM& model, std::span<const Continuation> batch,
                                           int64_t loss_chunk, ContextGroup* context = nullptr);

}  // namespace amalgam
