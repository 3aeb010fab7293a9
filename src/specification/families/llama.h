// SPDX-License-Identifier: Apache-2.0
// Llama 2 and 3, and what is built like them (SmolLM2): full attention in all layers.
#pragma once

#include "specification/sliding_window.h"
#include "specification/teacher_family.h"

namespace amalgam {

inline constexpr DeclaredKey llama_keys[] = {{"head_dim", DeclaredKey::Type::whole, true},
                                             {"pretraining_tp", DeclaredKey::Type::whole, true},
                                             {"attention_bias", DeclaredKey::Type::boolean},
                                             {"attention_dropout", DeclaredKey::Type::number, true},
                                             {"mlp_bias", DeclaredKey::Type::boolean}};

inline void parse_llama(const ConfigKeys& keys, ModelConfig& config) {
    config.mlp_bias = keys.get<bool>("mlp_bias", false);
    require(config.hidden_size % config.query_heads == 0, keys.where(), ": \"hidden_size\" is ", config.hidden_size,
            " but \"num_attention_heads\" is ", config.query_heads,
            " (transformers refuses a Llama whose heads do not divide it, even with \"head_dim\")");
    const double range = keys.get<double>("initializer_range", 0.02);
    require(range >= 0.0 && range <= 1.0, keys.where(), ": \"initializer_range\" is ", range, " (must be in [0, 1])");
    for (const std::string& type : parse_layer_types(keys, config.layers))
        require(type == full_attention, keys.where(), ": layer_types holds \"", type,
                "\" (a Llama has full attention in all layers)");
}

inline constexpr TeacherFamily llama_family = {.model_type = "llama", .declared = llama_keys, .parse = parse_llama};

}  // namespace amalgam
