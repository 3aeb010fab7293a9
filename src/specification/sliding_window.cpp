// SPDX-License-Identifier: Apache-2.0
#include "specification/sliding_window.h"

namespace amalgam {

std::vector<std::string> parse_layer_types(const ConfigKeys& keys, int64_t layers) {
    auto types = keys.get<std::vector<std::string>>("layer_types", {});
    if (!keys.has("layer_types")) return types;
    require(int64_t(types.size()) == layers, keys.where(), ": layer_types has ", types.size(), " entries for ", layers,
            " layers");
    for (size_t i = 0; i < types.size(); ++i) {
        if (types[i] == "attention") types[i] = full_attention;  // its earlier name
        require(types[i] == full_attention || types[i] == "sliding_attention", keys.where(), ": layer_types[", i,
                "] is \"", types[i], "\" (known: full_attention, sliding_attention)");
    }
    return types;
}

std::vector<int64_t> parse_windows(const ConfigKeys& keys, int64_t layers) {
    std::vector<int64_t> windows(size_t(layers), 0);
    const bool used = keys.get<bool>("use_sliding_window", false) && !keys.is_null("sliding_window");
    const int64_t window = keys.get<int64_t>("sliding_window", 4096);
    require(!used || window > 0, keys.where(), ": sliding_window is ", window, " (must be positive)");
    const auto types = parse_layer_types(keys, layers);
    const int64_t first = keys.get<int64_t>("max_window_layers", 28);
    require(first >= 0, keys.where(), ": max_window_layers is ", first, " (must not be negative)");
    for (int64_t i = 0; i < layers; ++i) {
        const bool slides = types.empty() ? used && i >= first : types[size_t(i)] != full_attention;
        require(
            !slides || used, keys.where(), ": layer_types[", i,
            "] is \"sliding_attention\" but there is no window (use_sliding_window is false or sliding_window null)");
        if (slides) windows[size_t(i)] = window;
    }
    return windows;
}

}  // namespace amalgam
