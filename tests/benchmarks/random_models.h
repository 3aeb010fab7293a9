// SPDX-License-Identifier: Apache-2.0
// What benchmarks of training steps share: the shapes of real teachers, random weights, medians.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

#include "estimate/known_shapes.h"
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

/// `t`: the parameter `name` or a part of it.
inline void fill_randomly(const std::string& name, at::Tensor t) {
    if (name.find("norm.weight") != std::string::npos)
        t.fill_(1.0);
    else
        t.normal_(0.0, 0.02);
}

inline double median(std::vector<double> values) {
    std::nth_element(values.begin(), values.begin() + std::ptrdiff_t(values.size() / 2), values.end());
    return values[values.size() / 2];
}

}  // namespace amalgam::benchmarks
