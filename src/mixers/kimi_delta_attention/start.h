// SPDX-License-Identifier: Apache-2.0
// How layers of Kimi Delta Attention start from those of a trained gated delta net: every channel of a head decays as
// the head does, and the output gate is 1/2 everywhere, which the norm's weight makes up for.
#pragma once

#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerStart> kimi_delta_attention_starts();

}  // namespace amalgam
