// SPDX-License-Identifier: Apache-2.0
// Short convolution of tokens as they stand in a pass: whole sequences, pieces of them, or documents.
#pragma once

#include "mixers/sequence_places.h"

namespace amalgam {

/// As operations.h's short_convolution.
at::Tensor short_convolution(const at::Tensor& x, const at::Tensor& weight, bool activation,
                             const SequencePlaces& places);

}  // namespace amalgam
