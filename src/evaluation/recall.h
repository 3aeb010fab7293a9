// SPDX-License-Identifier: Apache-2.0
// What a model recalls: its answers to recall questions. An answer is right if greedy decoding would give exactly its
// tokens; this, and how likely the answer is, come from one forward pass over question and answer (continuations.h), so
// that a question costs its length in tokens and nothing more.
#pragma once

#include "evaluation/statistics.h"
#include "model/causal_lm.h"
#include "questions/recall_questions.h"
#include "sharding/sequence_ranks.h"

namespace amalgam {

/// By question, numbered as in RecallQuestions.
struct RecallAnswers {
    RecallJob asked;
    std::vector<double> right;     // 1: every token of the answer is the most likely one; else 0
    std::vector<double> loss;      // of the answer, mean over its tokens, nat/token
    std::vector<double> checksum;  // CRC-32 of the question's tokens: two models that have the same were asked the same
};

/// Numbers of the questions that are looked at in one pass, all of one length. Long ones first, so that the last
/// batches dealt out are no longer than others. Cut without regard to the number of ranks, so that their arithmetic is
/// the same on any.
///
/// Questions may be divided into `parts`, of which only `part` is cut: each has questions of all kinds and depths.
std::vector<std::vector<int64_t>> recall_batches(const RecallQuestions& questions, int64_t part = 0, int64_t parts = 1);

/// Questions, or pieces of them, are spread over `ranks`; the answers are on all of them and do not depend on how many
/// ranks, or groups of ranks that share questions, there are. The model may be sharded over the group. Collective.
/// Throws what RecallQuestions::make throws, on all ranks.
RecallAnswers measure_recall(const CausalLM& model, const RecallQuestions& questions, int64_t loss_chunk,
                             const SequenceRanks& ranks);

/// Right answers, over all kinds and depths, to the questions of the length with this place in asked.lengths.
MeanAndError recall_at_length(const RecallAnswers& answers, size_t length);

}  // namespace amalgam
