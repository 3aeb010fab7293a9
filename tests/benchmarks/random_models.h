// SPDX-License-Identifier: Apache-2.0
// What benchmarks of training steps share: the shapes of real teachers, random weights, medians.
#pragma once

#include <ATen/ATen.h>

#include <algorithm>
#include <string>
#include <vector>

#include "model/config.h"
#include "system/error.h"

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

/// What the sizes of Qwen2.5 share; the numbers of the 1.5B model.
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

inline ModelConfig qwen2_5_3b(int64_t layers) {
    ModelConfig c = qwen2_5(layers);
    c.hidden_size = 2048;
    c.query_heads = 16;
    c.intermediate_size = 11008;
    return c;
}

inline ModelConfig qwen2_5_7b(int64_t layers) {
    ModelConfig c = qwen2_5(layers);
    c.hidden_size = 3584;
    c.query_heads = 28;
    c.key_value_heads = 4;
    c.intermediate_size = 18944;
    c.vocabulary_size = 152064;
    c.tied_head = false;
    return c;
}

struct Shape {
    const char* name;
    int64_t layers;
    ModelConfig (*config)(int64_t layers);
};
inline constexpr Shape shapes[] = {{"smollm2-135m", 30, smollm2},
                                   {"qwen2.5-1.5b", 28, qwen2_5},
                                   {"qwen2.5-3b", 36, qwen2_5_3b},
                                   {"qwen2.5-7b", 28, qwen2_5_7b}};

/// Throws Error(bad_input) for unknown names.
inline const Shape& shape_named(const std::string& name) {
    for (const Shape& shape : shapes)
        if (shape.name == name) return shape;
    throw Error(text("SHAPE: \"", name, "\" is not known (smollm2-135m, qwen2.5-1.5b, qwen2.5-3b, qwen2.5-7b)"),
                ExitCode::bad_input);
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
