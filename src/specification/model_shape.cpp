// SPDX-License-Identifier: Apache-2.0
#include "specification/model_shape.h"

namespace amalgam {

ModelShape shape_of(const ModelConfig& c) {
    return {c.hidden_size,       c.layers,          c.query_heads, c.key_value_heads, c.head_dim,
            c.intermediate_size, c.vocabulary_size, c.tied_head};
}

}  // namespace amalgam
