// SPDX-License-Identifier: Apache-2.0
// Measurements on sequences that were never trained on: KL divergence to the teacher, next-token loss, answer accuracy.
// Forward only; sequences, or pieces of them, are spread over the ranks of a group, and the results do not depend on
// how many ranks, or groups of ranks that share sequences, there are.
#pragma once

#include "objectives/distillation.h"
#include "sharding/sequence_ranks.h"
#include "storage/token_file.h"

namespace amalgam {

/// The first sequences of the validation file.
struct HeldOutSet {
    at::Tensor tokens;  // int64 [sequences, time], CPU
    /// For each sequence, positions of answer tokens that something in it predicts.
    std::vector<std::vector<int64_t>> answers;
    Borders borders = {};  // empty: documents are joined
    int64_t sequences() const { return tokens.size(0); }
    int64_t time() const { return tokens.size(1); }
    /// Sequences [first, first + count).
    TokenBatch batch(int64_t first, int64_t count, at::Device device) const;
    /// For each position, row-major: does the token there have a next one in its text?
    std::vector<bool> predicts() const;
};

/// Throws Error(bad_input) if the file holds less than `sequences`, or if nothing in them is predicted.
HeldOutSet read_held_out(const TokenFile& file, int64_t sequences, int64_t sequence_length,
                         DocumentBorders documents = DocumentBorders::joined);

/// KL(teacher || student) of every sequence, nat per token: mean over its tokens. `teacher` may keep its states between
/// calls. On all ranks alike.
std::vector<double> held_out_kl(const CausalLM& student, TeacherStates& teacher, const HeldOutSet& set,
                                int64_t micro_batch, int64_t loss_chunk, const SequenceRanks& ranks);

/// Row-major [sequences, time]. Position t speaks of the prediction made there: of the token at t + 1 (loss, correct;
/// the last position of a text has none and holds 0) or of the whole distribution (kl; empty without a teacher).
struct TokenMeasurements {
    std::vector<double> loss, correct, kl;
};

TokenMeasurements measure_tokens(const CausalLM& model, TeacherStates* teacher, const HeldOutSet& set,
                                 int64_t micro_batch, int64_t loss_chunk, const SequenceRanks& ranks);

}  // namespace amalgam
