// SPDX-License-Identifier: Apache-2.0
// The order of training sequences. One global cursor says where a run is, whatever the number of ranks. What the cursor
// stands at depends on nothing else.
//
// The token file is cut into blocks as long as the stage's longest sequence; the blocks come in the order of a keyed
// permutation, a new one each epoch. A phase whose sequences are that long (a stage without phases always) reads one
// after another. A phase of shorter sequences takes the next blocks that it needs, cuts each into as many sequences as
// fit, and reads these in the order of a permutation of its own, so that no batch is made of few blocks; where the
// blocks are of two epochs, first those of the first. So nothing is read again before every block was read, whatever
// the phases. Not read is what is left of a block: nothing where the longest length is a multiple of the others.
//
// Where documents are packed, the blocks come from packed_order.h instead, and all phases have one length.
//
// A sequence of recall questions takes the place of one of text, which is not read in this epoch.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "job/training_plan.h"
#include "mixers/documents.h"
#include "questions/question_sequences.h"
#include "storage/token_file.h"
#include "system/random.h"
#include "training/packed_order.h"

namespace amalgam {

class Batches {
  public:
    /// `stage` separates the orders of stages. `job`: its phases, sequence_length, repeat_fraction, question_fraction
    /// and question_kinds count. `wording`: of the questions, if there are any. Packed documents are separate. Throws
    /// Error(bad_input) if the file holds less than one of the longest sequences, or as QuestionSequences or
    /// PackedOrder do.
    Batches(const TokenFile& file, const TrainingJob& job, uint64_t seed, const std::string& stage,
            DocumentBorders documents = DocumentBorders::joined, const RecallWording& wording = {},
            DocumentPacking packing = DocumentPacking::none);

    /// Sequences [cursor, cursor + count) of the endless order, which are of one phase: int64 [count, its
    /// sequence_length] on the CPU. Throws Error(bad_input) as QuestionSequences::make does.
    at::Tensor sequences(int64_t cursor, int64_t count) const;
    /// Of the same sequences; empty where documents are joined. Questions are one text.
    Borders borders(int64_t cursor, int64_t count) const;
    /// Sequences, or documents in them where these are separate.
    int64_t texts(int64_t cursor, int64_t count) const;
    /// Of the documents of the first sequences, for people; empty where they are not packed.
    std::string packing_in_words() const;

  private:
    bool is_questions(int64_t sequence) const;
    /// What the sequence of that number in the order consists of.
    std::vector<TokenRange> pieces(const PlannedPhase& phase, int64_t sequence) const;
    std::vector<int64_t> borders_in(const PlannedPhase& phase, int64_t sequence) const;
    /// Where the sequence of that number in the order begins in the file, tokens.
    int64_t first_token(const PlannedPhase& phase, int64_t sequence) const;

    const TokenFile& file_;
    TrainingPlan plan_;
    int64_t blocks_;  // of the file
    double repeat_fraction_;
    DocumentBorders documents_;
    RandomStream repeats_;
    std::optional<QuestionSequences> questions_;
    mutable std::optional<PackedOrder> packed_;  // keeps what it packed last
    uint64_t key_, key_of_parts_;
};

/// Sequences [first, first + count) of the file in their own order: for held-out measurements.
at::Tensor read_sequences(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count);
/// Of the same.
Borders read_borders(const TokenFile& file, int64_t sequence_length, int64_t first, int64_t count);

}  // namespace amalgam
