// SPDX-License-Identifier: Apache-2.0
// Qwen3 (dense): an RMS norm of query and key in every head.
#pragma once

#include "specification/sliding_window.h"
#include "specification/teacher_family.h"

namespace amalgam {

inline constexpr DeclaredKey qwen3_keys[] = {{"head_dim", DeclaredKey::Type::whole},
                                             {"attention_bias", DeclaredKey::Type::boolean},
                                             {"use_sliding_window", DeclaredKey::Type::boolean},
                                             {"sliding_window", DeclaredKey::Type::whole, true},
                                             {"max_window_layers", DeclaredKey::Type::whole},
                                             {"layer_types", DeclaredKey::Type::list_of_texts, true},
                                             {"attention_dropout", DeclaredKey::Type::number}};

inline void parse_qwen3(const ConfigKeys& keys, ModelConfig& config) {
    config.qk_norm = true;
    config.window = parse_windows(keys, config.layers);
}

// Heads of 128 are transformers' default, whatever hidden_size is.
inline constexpr TeacherFamily qwen3_family = {.model_type = "qwen3",
                                               .declared = qwen3_keys,
                                               .default_head_dim = 128,
                                               .default_key_value_heads = 32,
                                               .default_max_positions = 32768,
                                               .parse = parse_qwen3};

}  // namespace amalgam
