// SPDX-License-Identifier: Apache-2.0
// The families of teachers. What they have in common, hugging_face_config reads; a family reads where it differs, into
// flags of ModelConfig, and is not asked for afterwards. All of them name their tensors alike, as the modules of
// src/mixers and src/model do. To add one: a file in families/, and its line in teacher_family.cpp.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "specification/config_keys.h"
#include "specification/model_config.h"

namespace amalgam {

/// Models of one architecture: those whose config.json has this model_type.
struct TeacherFamily {
    std::string_view model_type;
    /// What head_dim is where config.json has none; 0: hidden_size / num_attention_heads.
    int64_t default_head_dim = 0;
    /// Sets what the family does otherwise in a config whose sizes and RoPE are there, whose biases are those that
    /// `attention_bias` asks for, and which has no windows. Throws Error(bad_input) naming file and key.
    void (*parse)(const ConfigKeys& keys, ModelConfig& config);
};

std::span<const TeacherFamily> teacher_families();

}  // namespace amalgam
