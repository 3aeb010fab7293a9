// SPDX-License-Identifier: Apache-2.0
// Qwen3 (dense): an RMS norm of query and key in every head.
#pragma once

#include "specification/sliding_window.h"
#include "specification/teacher_family.h"

namespace amalgam {

inline void parse_qwen3(const ConfigKeys& keys, ModelConfig& config) {
    config.qk_norm = true;
    config.window = parse_windows(keys, config.layers);
}

// Heads of 128 are transformers' default, whatever hidden_size is.
inline constexpr TeacherFamily qwen3_family = {"qwen3", 128, parse_qwen3};

}  // namespace amalgam
