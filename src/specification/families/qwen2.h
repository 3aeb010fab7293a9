// SPDX-License-Identifier: Apache-2.0
// Qwen2 and Qwen2.5: always biases on query, key and value, never on the output.
#pragma once

#include "specification/sliding_window.h"
#include "specification/teacher_family.h"

namespace amalgam {

inline void parse_qwen2(const ConfigKeys& keys, ModelConfig& config) {
    config.qkv_bias = true;
    config.output_bias = false;
    config.window = parse_windows(keys, config.layers);
}

inline constexpr TeacherFamily qwen2_family = {"qwen2", 0, parse_qwen2};

}  // namespace amalgam
