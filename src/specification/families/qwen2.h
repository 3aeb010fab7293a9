// SPDX-License-Identifier: Apache-2.0
// Qwen2 and Qwen2.5: always biases on query, key and value, never on the output.
#pragma once

#include "specification/sliding_window.h"
#include "specification/teacher_family.h"

namespace amalgam {

inline constexpr DeclaredKey qwen2_keys[] = {{"use_sliding_window", DeclaredKey::Type::boolean},
                                             {"sliding_window", DeclaredKey::Type::whole, true},
                                             {"max_window_layers", DeclaredKey::Type::whole},
                                             {"layer_types", DeclaredKey::Type::list_of_texts, true},
                                             {"attention_dropout", DeclaredKey::Type::number}};

inline void parse_qwen2(const ConfigKeys& keys, ModelConfig& config) {
    config.qkv_bias = true;
    config.output_bias = false;
    config.window = parse_windows(keys, config.layers);
    // It is no key of this family: transformers takes it where it is, and has no default for null.
    require(!keys.is_null("head_dim"), keys.where(), ": \"head_dim\" is null (transformers fails on it) leave it out");
}

inline constexpr TeacherFamily qwen2_family = {.model_type = "qwen2",
                                               .declared = qwen2_keys,
                                               .default_key_value_heads = 32,
                                               .default_max_positions = 32768,
                                               .parse = parse_qwen2};

}  // namespace amalgam
