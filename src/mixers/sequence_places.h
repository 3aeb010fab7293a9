// SPDX-License-Identifier: Apache-2.0
// Where the tokens of a pass over whole sequences stand.
#pragma once

#include <memory>

#include "mixers/context_group.h"
#include "mixers/documents.h"
#include "mixers/documents_of_piece.h"
#include "operations/rope.h"

namespace amalgam {

struct SequencePlaces {
    RotaryTables rotary;              // of the tokens' positions, which are those of all sequences of a batch
    ContextGroup* context = nullptr;  // where each rank has a piece of the sequences; null: they are whole
    int64_t length = 0;               // of the whole sequences, in a context group
    // Documents that are kept apart, of whole sequences or, in a context group, of the piece; null: none are.
    std::shared_ptr<const Documents> documents = nullptr;
    std::shared_ptr<const DocumentsOfPiece> documents_of_piece = nullptr;
};

}  // namespace amalgam
