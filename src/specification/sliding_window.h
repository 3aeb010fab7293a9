// SPDX-License-Identifier: Apache-2.0
// Which layers attend to a sliding window, in the keys that the Qwen families share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "specification/config_keys.h"

namespace amalgam {

inline constexpr const char* full_attention = "full_attention";

/// The list layer_types, one of "full_attention" and "sliding_attention" for each layer; empty if there is none. Throws
/// Error(bad_input) for any other type, and for a list that is too short or too long.
std::vector<std::string> parse_layer_types(const ConfigKeys& keys, int64_t layers);

/// Per layer: the window in tokens, 0 for full attention. A window (4096 unless given) counts only where
/// use_sliding_window says so; then layer_types tells which layers have it, or else all from max_window_layers (28) on.
/// Throws Error(bad_input), also for layers that should have a window where there is none.
std::vector<int64_t> parse_windows(const ConfigKeys& keys, int64_t layers);

}  // namespace amalgam
