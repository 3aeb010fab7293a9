// SPDX-License-Identifier: Apache-2.0
// What benchmarks of models share: the shapes of real teachers, random weights, medians.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

#include "estimate/known_shapes.h"
#include "model/causal_lm.h"
#include "specification/model_config.h"
#include "system/error.h"

namespace amalgam::benchmarks {

/// A published teacher (estimate/known_shapes.h: its layers unless `layers` is positive) of the families SmolLM2 and
/// Qwen2.5. Throws Error(bad_input) for unknown names.
inline ModelConfig config_of(const std::string& name, int64_t layers) {
    ModelConfig c = find_shape(name);
    const bool qwen = name.starts_with("qwen2.5-");
    require(qwen || name.starts_with("smollm2-"), name, ": no benchmark has this family (Qwen2.5 and SmolLM2)");
    if (layers > 0) c.layers = layers;
    c.max_positions = qwen ? 32768 : 8192;
    c.rms_norm_eps = qwen ? 1e-6 : 1e-5;
    c.rope.rope_theta = qwen ? 1000000.0 : 100000.0;
    c.window.assign(size_t(c.layers), 0);
    return c;
}

/// A linear mixer, and softmax in every fourth layer.
inline Layout hybrid(int64_t layers, const std::string& mixer = "gated_delta_net") {
    Layout layout = all_linear(layers, mixer);
    for (int64_t layer = 3; layer < layers; layer += 4) layout[size_t(layer)] = softmax_mixer;
    return layout;
}

/// "teacher", "linear", or how many layers keep softmax, spread evenly.
inline Layout layout_of(const std::string& name, int64_t layers) {
    if (name == "teacher") return all_softmax(layers);
    if (name == "linear") return all_linear(layers, "gated_delta_net");
    const int64_t kept = std::stoll(name);
    std::vector<int64_t> at;
    for (int64_t i = 0; i < kept; ++i) at.push_back((2 * i + 1) * layers / (2 * kept));
    return keep_softmax(layers, "gated_delta_net", at);
}

/// `t`: the parameter `name` or a part of it.
inline void fill_randomly(const std::string& name, at::Tensor t) {
    if (name.find("norm.weight") != std::string::npos)
        t.fill_(1.0);
    else
        t.normal_(0.0, 0.02);
}

inline void fill_randomly(CausalLM& model) {
    model.parameters().for_each_named(
        [](const std::string& name, const at::Tensor& t, Parameter&) { fill_randomly(name, t); });
    model.parameters().refresh_compute();
}

inline double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}  // namespace amalgam::benchmarks
