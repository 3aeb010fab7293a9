// SPDX-License-Identifier: Apache-2.0
// Sliding windows of softmax attention, in the keys that the Qwen families share.
#pragma once

#include <cstdint>
#include <vector>

#include "specification/config_keys.h"

namespace amalgam {

/// Per layer: the window in tokens, 0 for full attention. A window counts only where use_sliding_window says so; then
/// layer_types tells which layers have it, or else all from max_window_layers on. Throws Error(bad_input).
std::vector<int64_t> parse_windows(const ConfigKeys& keys, int64_t layers);

}  // namespace amalgam
