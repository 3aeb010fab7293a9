// SPDX-License-Identifier: Apache-2.0
// Log-likelihoods of continuations, in batches that are cut without regard to the number of ranks, so that their
// arithmetic is the same on any. Requests with the same context are judged together: the context is computed once, and
// every continuation goes on from a copy of what it left in the caches.
#pragma once

#include <functional>
#include <vector>

#include "evaluation/continuations.h"
#include "evaluation/request_file.h"
#include "model/causal_lm.h"

namespace amalgam {

struct JudgedBatch {
    std::vector<int64_t> requests;  // of one context, neighbours
    int64_t context = 0;            // tokens of all contexts where they are shared; 0: whole sequences, padded
    double cost = 0.0;              // tokens to compute
};

/// All requests of `file` that are to be judged. Contexts are not shared for a model whose rotation depends on the
/// whole length.
std::vector<JudgedBatch> judged_batches(const RequestFile& file, const ModelConfig& config);

/// The forward passes that judge a batch, to be run in this order; the last one calls `judged` for each request.
/// `model` and `file` must stay.
std::vector<std::function<void()>> passes_of(const JudgedBatch& batch, const CausalLM& model, const RequestFile& file,
                                             int64_t loss_chunk,
                                             std::function<void(int64_t request, const Judgement&)> judged);

}  // namespace amalgam
