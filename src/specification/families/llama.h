// SPDX-License-Identifier: Apache-2.0
// Llama 2 and 3, and what is built like them (SmolLM2): no windows, whatever the config says.
#pragma once

#include "specification/teacher_family.h"

namespace amalgam {

inline void parse_llama(const ConfigKeys& keys, ModelConfig& config) {
    config.mlp_bias = keys.get<bool>("mlp_bias", false);
}

inline constexpr TeacherFamily llama_family = {"llama", 0, parse_llama};

}  // namespace amalgam
