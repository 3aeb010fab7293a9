// SPDX-License-Identifier: Apache-2.0
// Where the tokens of a pass over whole sequences stand.
#pragma once

#include <memory>

#include "mixers/context_group.h"
#include "mixers/documents.h"
#include "operations/rope.h"

namespace amalgam {

struct SequencePlaces {
    RotaryTables rotary;              // of the tokens' positions, which are those of all sequences of a batch
    ContextGroup* context = nullptr;  // where each rank has a piece of the sequences; null: they are whole
    int64_t length = 0;               // of the whole sequences, in a context group
    /// That are kept apart; null: none are. Not in a context group.
    std::shared_ptr<const Documents> documents = nullptr;
};

}  // namespace amalgam
