// SPDX-License-Identifier: Apache-2.0
// Tokens of plain text whose prediction needs far context: the teacher's loss of them is lower by
// score.far_context.gain nat with the whole sequence before them than with the last tokens alone. Nothing is asked, and
// nothing is in the text but what stands there: the long-short difference of LongPPL (Fang et al., arXiv 2410.23771),
// which also wants such tokens to be likely.
//
// For the last tokens alone the teacher runs, as it is, over windows of 2 W tokens (W: score.far_context.window), of
// which one begins at every W-th token; of each the predictions of the second half count. So every prediction knows
// the last W + 1 to 2 W tokens, counting its own, and nothing else: with attention to the last W tokens in each layer
// instead, every layer would reach W tokens further back. Predictions within the first 2 W tokens have no far context.
#pragma once

#include "job/job.h"
#include "model/causal_lm.h"

namespace amalgam {

/// For each token of a batch, bool [sequences * time]: does the prediction made there, of the next token, need far
/// context? Documents that are kept apart are so in windows too. `states` [sequences * time, width]: the teacher's, of
/// the batch; `head`: its head, held. With `context` states and result are those of this rank's piece; windows are
/// short, and each rank computes those whole that it needs.
/// Two forward passes of as many tokens as the sequences have. The batch may be empty (weights_on_demand.h): ranks
/// of a sharded teacher call this together.
at::Tensor needs_far_context(const CausalLM& teacher, const at::Tensor& head, const TokenBatch& batch,
                             const at::Tensor& states, const FarContextJob& job, int64_t loss_chunk,
                             ContextGroup* context = nullptr);

}  // namespace amalgam
