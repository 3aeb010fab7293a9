// SPDX-License-Identifier: Apache-2.0
// What a rank has of sequences that a context group shares (mixers/sequence_pieces.h). Without a context group, which
// null stands for, all of them.
#pragma once

#include <vector>

#include "mixers/context_group.h"
#include "mixers/sequence_pieces.h"
#include "model/token_batch.h"

namespace amalgam {

/// Of sequences of `length` tokens.
SequencePiece own_piece(int64_t length, const ContextGroup* context);

/// Values [sequences, time] of the tokens of whole sequences -> a view of those of this rank's piece.
at::Tensor own_piece(const at::Tensor& values, const ContextGroup* context);

/// next_tokens() of the tokens of this rank's piece, [sequences * time of the piece].
at::Tensor own_next_tokens(const TokenBatch& batch, const ContextGroup* context);

/// Numbers that a rank of the context group has at most for the tokens of the batch, `width` of each token; the same on
/// all ranks of the group, so that they decide alike what they keep.
int64_t most_numbers(const TokenBatch& batch, int64_t width, const ContextGroup* context);

/// Of places in the flattened tokens of whole sequences, those in this rank's piece.
struct OwnPlaces {
    std::vector<size_t> which;    // of the given ones
    std::vector<int64_t> places;  // in the flattened tokens of the piece
};
OwnPlaces own_places(const std::vector<int64_t>& places, int64_t length, const ContextGroup* context);

}  // namespace amalgam
