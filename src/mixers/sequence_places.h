// SPDX-License-Identifier: Apache-2.0
// Where the tokens of a pass over whole sequences stand.
#pragma once

#include "mixers/context_group.h"
#include "operations/rope.h"

namespace amalgam {

/// The same for all sequences of a batch.
struct SequencePlaces {
    RotaryTables rotary;              // of the tokens' positions
    ContextGroup* context = nullptr;  // where each rank has a piece of the sequences; null: they are whole
    int64_t length = 0;               // of the whole sequences, in a context group
};

}  // namespace amalgam
