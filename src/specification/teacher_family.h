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

/// A key that the family's own config class in transformers declares, with the type it checks; a value of another type
/// is refused there, and so it is here. Keys that no class declares are not looked at.
struct DeclaredKey {
    enum class Type { boolean, whole, real, number, text, list_of_texts, whole_or_list };  // number: real or whole
    const char* name;
    Type type;
    bool may_be_null = false;
};

/// Models of one architecture: those whose config.json has this model_type.
struct TeacherFamily {
    std::string_view model_type;
    /// Besides those that all families declare.
    std::span<const DeclaredKey> declared;
    /// What head_dim is where config.json has none; 0: hidden_size / num_attention_heads.
    int64_t default_head_dim = 0;
    /// What num_key_value_heads is where config.json has none (null: one for each query head); 0: likewise.
    int64_t default_key_value_heads = 0;
    int64_t default_max_positions = 2048;
    /// Sets what the family does otherwise in a config whose sizes and RoPE are there, whose biases are those that
    /// `attention_bias` asks for, and which has no windows. Throws Error(bad_input) naming file and key.
    void (*parse)(const ConfigKeys& keys, ModelConfig& config);
};

std::span<const TeacherFamily> teacher_families();

/// Throws Error(bad_input) for a declared key whose value has another type.
void expect_declared_types(const ConfigKeys& keys, const TeacherFamily& family);

}  // namespace amalgam
