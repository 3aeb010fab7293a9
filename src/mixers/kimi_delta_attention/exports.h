// SPDX-License-Identifier: Apache-2.0
// How layers of Kimi Delta Attention are written in export formats: fla's kda. Other programs have it in models whose
// full layers are no softmax attention with rotary embedding.
#pragma once

#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerExport> kimi_delta_attention_exports();

}  // namespace amalgam
