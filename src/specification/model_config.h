// SPDX-License-Identifier: Apache-2.0
// The sizes and switches of a teacher and of its students, whatever family it comes from: families differ in these
// values only, and nothing above this floor asks for a family by name.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace amalgam {

/// Rotary position embedding. Types, formulas and names are those of transformers' modeling_rope_utils.
struct RopeConfig {
    std::string rope_type = "default";  // default | linear | dynamic | llama3 | yarn
    double rope_theta = 10000.0;
    double factor = 1.0;
    double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
    int64_t original_max_position_embeddings = 0;  // llama3, yarn, dynamic: tokens the frequencies were made for
    double beta_fast = 32.0, beta_slow = 1.0;      // yarn
    double attention_factor = 0.0;                 // yarn: scales cos and sin; 0: 0.1 ln(factor) + 1
    double mscale = 0.0, mscale_all_dim = 0.0;     // yarn, where given
    bool truncate = true;                          // yarn: round the correction range
};

struct ModelConfig {
    std::string family;  // as teacher_families() names it; for messages and files
    int64_t hidden_size = 0, layers = 0, query_heads = 0, key_value_heads = 0, head_dim = 0;
    int64_t intermediate_size = 0, vocabulary_size = 0, max_positions = 0;
    double rms_norm_eps = 1e-6;
    bool tied_head = false;  // the head is the embedding
    bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false;
    RopeConfig rope;
    std::vector<int64_t> window;  // per layer: sliding window in tokens, 0 for full attention
    std::vector<int64_t> bos, eos;
};

/// Parameters of the softmax model that the config describes (embeddings counted once if tied).
int64_t count_parameters(const ModelConfig& config);

}  // namespace amalgam
