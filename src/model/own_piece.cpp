// SPDX-License-Identifier: Apache-2.0
#include "model/own_piece.h"

#include <ATen/ATen.h>

namespace amalgam {

SequencePiece own_piece(int64_t length, const ContextGroup* context) {
    return context ? sequence_piece(length, context->ranks(), context->rank()) : SequencePiece{0, length};
}

at::Tensor own_piece(const at::Tensor& values, const ContextGroup* context) {
    const SequencePiece piece = own_piece(values.size(1), context);
    return values.narrow(1, piece.first, piece.count);
}

at::Tensor own_next_tokens(const TokenBatch& batch, const ContextGroup* context) {
    return own_piece(next_tokens(batch).view_as(batch.tokens), context).flatten();
}

int64_t most_numbers(const TokenBatch& batch, int64_t width, const ContextGroup* context) {
    return batch.sequences() * longest_piece(batch.time(), context ? context->ranks() : 1) * width;
}

OwnPlaces own_places(const std::vector<int64_t>& places, int64_t length, const ContextGroup* context) {
    const SequencePiece piece = own_piece(length, context);
    OwnPlaces own;
    for (size_t i = 0; i < places.size(); ++i) {
        const int64_t sequence = places[i] / length, place = places[i] % length - piece.first;
        if (place < 0 || place >= piece.count) continue;
        own.which.push_back(i);
        own.places.push_back(sequence * piece.count + place);
    }
    return own;
}

}  // namespace amalgam
