// SPDX-License-Identifier: Apache-2.0
#include "specification/sliding_window.h"

namespace amalgam {

std::vector<int64_t> parse_windows(const ConfigKeys& keys, int64_t layers) {
    std::vector<int64_t> windows(size_t(layers), 0);
    if (!keys.get<bool>("use_sliding_window", false) || !keys.has("sliding_window")) return windows;
    const int64_t window = keys.get<int64_t>("sliding_window");
    require(window > 0, keys.where(), ": sliding_window is ", window, " (must be positive)");
    if (keys.has("layer_types")) {
        const auto types = keys.get<std::vector<std::string>>("layer_types");
        require(int64_t(types.size()) == layers, keys.where(), ": layer_types has ", types.size(), " entries for ",
                layers, " layers");
        for (int64_t i = 0; i < layers; ++i) {
            require(types[i] == "full_attention" || types[i] == "sliding_attention", keys.where(), ": layer_types[", i,
                    "] is \"", types[i], "\" (known: full_attention, sliding_attention)");
            if (types[i] == "sliding_attention") windows[i] = window;
        }
    } else {
        const int64_t first = keys.get<int64_t>("max_window_layers", layers);
        require(first >= 0, keys.where(), ": max_window_layers is ", first, " (must not be negative)");
        for (int64_t i = first; i < layers; ++i) windows[i] = window;
    }
    return windows;
}

}  // namespace amalgam
