// SPDX-License-Identifier: Apache-2.0
// What a model is: the sizes and switches of a Llama, Qwen2/Qwen2.5 or Qwen3 teacher as its Hugging Face config.json
// says, the mixer of every layer (Layout), and the options of the linear mixers. A ModelSpec is all one needs, next to
// the weights, to build a model; it is stored as JSON in every checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "options/options.h"

namespace amalgam {

/// Rotary position embedding. Types and formulas as transformers' modeling_rope_utils names them.
struct RopeConfig {
    std::string type = "default";  // default | linear | dynamic | llama3 | yarn
    double theta = 10000.0;
    double factor = 1.0;
    double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
    int64_t original_max_position = 0;          // llama3, yarn, dynamic: tokens the frequencies were made for
    double beta_fast = 32.0, beta_slow = 1.0;   // yarn
    double attention_factor = 0.0;              // yarn: scales cos and sin; 0: 0.1 ln(factor) + 1
    double mscale = 0.0, mscale_all_dim = 0.0;  // yarn, where given
    bool truncate = true;                       // yarn: round the correction range
};

struct ModelConfig {
    std::string family;  // llama | qwen2 | qwen3
    int64_t hidden_size = 0, layers = 0, query_heads = 0, key_value_heads = 0, head_dim = 0;
    int64_t intermediate_size = 0, vocabulary_size = 0, max_positions = 0;
    double rms_norm_eps = 1e-6;
    bool tied_head = false;  // the head is the embedding
    bool qkv_bias = false, output_bias = false, mlp_bias = false, qk_norm = false;
    RopeConfig rope;
    std::vector<int64_t> window;  // per layer: sliding window in tokens, 0 for full attention
    std::vector<int64_t> bos, eos;
};

/// The mixer of each layer, by name: "softmax" or the name of a linear mixer.
using Layout = std::vector<std::string>;
inline constexpr const char* softmax_mixer = "softmax";

struct ModelSpec {
    ModelConfig config;
    Layout layout;
    Options options;                // of the linear mixer, as its declaration names them
    double output_norm_eps = 1e-6;  // of the linear mixer's output norm
};

/// Reads config.json of a Hugging Face folder as transformers 4 and 5 write it. Throws Error(bad_input) naming the key:
/// unknown model_type, unsupported rope type or activation, sizes that do not fit together.
ModelConfig read_config(const std::filesystem::path& folder);
ModelConfig parse_config(const nlohmann::json& json, const std::string& where);

std::string to_json(const ModelSpec& spec);
ModelSpec spec_from_json(const std::string& text, const std::string& where);

Layout all_linear(int64_t layers, const std::string& mixer);
Layout all_softmax(int64_t layers);
/// `mixer` everywhere but in `kept`, which are softmax.
Layout keep_softmax(int64_t layers, const std::string& mixer, const std::vector<int64_t>& kept);
/// Layers that are softmax, ascending.
std::vector<int64_t> softmax_layers(const Layout& layout);
/// The linear mixer of a hybrid's layers; empty if all are softmax.
std::string linear_mixer(const Layout& layout);
/// "gated_delta_net x 28, softmax at {5, 14}".
std::string describe(const Layout& layout);

/// Parameters of the softmax model that the config describes (embeddings counted once if tied).
int64_t count_parameters(const ModelConfig& config);

}  // namespace amalgam
