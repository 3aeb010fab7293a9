// SPDX-License-Identifier: Apache-2.0
#include "specification/layout.h"

#include "system/error.h"

namespace amalgam {

Layout all_linear(int64_t layers, const std::string& mixer) {
    return Layout(layers, mixer);
}

Layout all_softmax(int64_t layers) {
    return Layout(layers, softmax_mixer);
}

Layout keep_softmax(int64_t layers, const std::string& mixer, const std::vector<int64_t>& kept) {
    Layout layout = all_linear(layers, mixer);
    for (int64_t layer : kept) layout.at(layer) = softmax_mixer;
    return layout;
}

std::vector<int64_t> softmax_layers(const Layout& layout) {
    std::vector<int64_t> layers;
    for (size_t i = 0; i < layout.size(); ++i)
        if (layout[i] == softmax_mixer) layers.push_back(int64_t(i));
    return layers;
}

std::string linear_mixer(const Layout& layout) {
    for (const auto& name : layout)
        if (name != softmax_mixer) return name;
    return "";
}

std::string describe(const Layout& layout) {
    const auto kept = softmax_layers(layout);
    if (kept.size() == layout.size()) return text("softmax x ", layout.size());
    std::string result = text(linear_mixer(layout), " x ", layout.size() - kept.size());
    if (kept.empty()) return result;
    result += ", softmax at {";
    for (size_t i = 0; i < kept.size(); ++i) result += text(i ? ", " : "", kept[i]);
    return result + "}";
}

}  // namespace amalgam
