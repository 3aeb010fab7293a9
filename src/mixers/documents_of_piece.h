// SPDX-License-Identifier: Apache-2.0
// Documents that are kept apart (documents.h) in a rank's piece of each sequence (sequence_pieces.h). Borders fall
// anywhere: the first document of a piece may have begun in any earlier one, and its last may go on in later ones.
#pragma once

#include "mixers/documents.h"

namespace amalgam {

class DocumentsOfPiece {
  public:
    /// `borders` of whole sequences of `length` tokens, at least one; tensors lie on `device`.
    DocumentsOfPiece(const Borders& borders, int64_t length, int64_t ranks, int64_t rank, at::Device device);

    /// Of the piece alone, as if sequences were no longer.
    const Documents& own() const { return own_; }
    /// Of the piece with the inputs before it that a short convolution reads.
    const Documents& convolved() const { return convolved_; }

    /// States of recurrences as they come from the piece before, [sequences, ...]: zero where the piece begins with a
    /// document's first token.
    at::Tensor continued(const at::Tensor& states) const;
    /// continued() states as they enter each document of own(), [documents, ...]: zero for all but the first ones.
    at::Tensor entering(const at::Tensor& continued) const;
    /// Of states that leave each document, [documents, ...], those that leave the piece: [sequences, ...].
    at::Tensor leaving(const at::Tensor& states) const;

    /// Number in own() of the first document of each sequence, and its tokens in earlier pieces.
    const std::vector<int64_t>& first() const { return first_; }
    const std::vector<int64_t>& before() const { return before_; }
    /// For each rank: the first token of the whole sequences that a document in its piece has, in any of them.
    const std::vector<int64_t>& beginnings() const { return beginnings_; }

  private:
    Documents own_, convolved_;
    std::vector<int64_t> first_, before_, beginnings_;
    at::Tensor begins_anew_;                       // bool [sequences]
    at::Tensor first_documents_, last_documents_;  // int64 [sequences]
};

}  // namespace amalgam
