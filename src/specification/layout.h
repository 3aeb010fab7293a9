// SPDX-License-Identifier: Apache-2.0
// Which mixer each layer of a model has.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace amalgam {

/// The mixer of each layer, by name: "softmax" or the name of a linear mixer.
using Layout = std::vector<std::string>;
inline constexpr const char* softmax_mixer = "softmax";
/// A mixer that gives zeros. No student has it: it shows what a layer is needed for (rules/scorers.h).
inline constexpr const char* ablated_mixer = "ablated";

Layout all_linear(int64_t layers, const std::string& mixer);
Layout all_softmax(int64_t layers);
/// `mixer` everywhere but in `kept`, which are softmax.
Layout keep_softmax(int64_t layers, const std::string& mixer, const std::vector<int64_t>& kept);
/// Layers that are softmax, ascending.
std::vector<int64_t> softmax_layers(const Layout& layout);
/// The linear mixer of a hybrid's layers; empty if all are softmax.
std::string linear_mixer(const Layout& layout);
/// "gated_delta_net x 28, softmax at {5, 14}".
std::string describe(const Layout& layout);

}  // namespace amalgam
