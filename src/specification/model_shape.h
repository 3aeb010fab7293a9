// SPDX-License-Identifier: Apache-2.0
// The sizes that estimates need of a teacher, without everything else that its config.json says.
#pragma once

#include <cstdint>

#include "specification/model_config.h"

namespace amalgam {

/// The teacher's sizes, as config.json gives them.
struct ModelShape {
    int64_t hidden_size = 0;
    int64_t layers = 0;
    int64_t query_heads = 0;
    int64_t key_value_heads = 0;
    int64_t head_dim = 0;
    int64_t intermediate_size = 0;
    int64_t vocabulary_size = 0;
    bool tied = false;  // embeddings and head are one matrix
};

ModelShape shape_of(const ModelConfig& config);

}  // namespace amalgam
