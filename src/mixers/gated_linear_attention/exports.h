// SPDX-License-Identifier: Apache-2.0
// How layers of gated linear attention are written in export formats: fla's gla.
#pragma once

#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerExport> gated_linear_attention_exports();

}  // namespace amalgam
