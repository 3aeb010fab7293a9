// SPDX-License-Identifier: Apache-2.0
#include "specification/model_config.h"

namespace amalgam {

int64_t count_parameters(const ModelConfig& c) {
    const int64_t query = c.query_heads * c.head_dim, key_value = c.key_value_heads * c.head_dim;
    int64_t block =
        c.hidden_size * (2 * query + 2 * key_value) + 3 * c.hidden_size * c.intermediate_size + 2 * c.hidden_size;
    if (c.qkv_bias) block += query + 2 * key_value;
    if (c.output_bias) block += c.hidden_size;
    if (c.mlp_bias) block += 2 * c.intermediate_size + c.hidden_size;
    if (c.qk_norm) block += 2 * c.head_dim;
    return c.layers * block + c.hidden_size + (c.tied_head ? 1 : 2) * c.vocabulary_size * c.hidden_size;
}

}  // namespace amalgam
