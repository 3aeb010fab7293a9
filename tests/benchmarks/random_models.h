// SPDX-License-Identifier: Apache-2.0
// What benchmarks of training steps share: the shapes of real teachers, random weights, medians.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/config.h"

namespace amalgam::benchmarks {

inline ModelConfig smollm2(int64_t layers) {
    ModelConfig c;
    c.family = "llama";
    c.hidden_size = 576;
    c.layers = layers;
    c.query_heads = 9;
    c.key_value_heads = 3;
    c.head_dim = 64;
    c.intermediate_size = 1536;
    c.vocabulary_size = 49152;
    c.max_positions = 8192;
    c.rms_norm_eps = 1e-5;
    c.tied_head = true;
    c.rope.theta = 100000.0;
    c.window.assign(size_t(layers), 0);
    return c;
}

inline ModelConfig qwen2_5(int64_t layers) {
    ModelConfig c = smollm2(layers);
    c.family = "qwen2";
    c.hidden_size = 1536;
    c.query_heads = 12;
    c.key_value_heads = 2;
    c.head_dim = 128;
    c.intermediate_size = 8960;
    c.vocabulary_size = 151936;
    c.max_positions = 32768;
    c.rms_norm_eps = 1e-6;
    c.qkv_bias = true;
    c.rope.theta = 1000000.0;
    return c;
}

/// Gated delta nets, and softmax in every fourth layer.
inline Layout hybrid(int64_t layers) {
    Layout layout = all_linear(layers, "gated_delta_net");
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
