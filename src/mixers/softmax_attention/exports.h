// SPDX-License-Identifier: Apache-2.0
// How layers of softmax attention are written in export formats.
#pragma once

#include <vector>

#include "mixers/implementation.h"

namespace amalgam {

std::vector<LayerExport> softmax_attention_exports();

}  // namespace amalgam
