// SPDX-License-Identifier: Apache-2.0
// Where the tokens of a pass over whole sequences stand.
#pragma once

#include "operations/rope.h"

namespace amalgam {

/// The same for all sequences of a batch.
struct SequencePlaces {
    RotaryTables rotary;  // of the tokens' positions
};

}  // namespace amalgam
