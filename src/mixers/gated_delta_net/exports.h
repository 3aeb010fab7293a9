// SPDX-License-Identifier: Apache-2.0
// How gated delta nets are written in export formats: qwen3_5, whose linear layers have the same formula (without short
// convolution its kernel is [0, 0, 0, 1]), and fla's gated_deltanet.
#pragma once

#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerExport> gated_delta_net_exports();

}  // namespace amalgam
