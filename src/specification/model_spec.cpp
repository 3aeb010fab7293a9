// SPDX-License-Identifier: Apache-2.0
#include "specification/model_spec.h"

#include <nlohmann/json.hpp>

#include "system/error.h"

namespace amalgam {

using nlohmann::json;

// Members are called what checkpoints call them.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(RopeConfig, rope_type, rope_theta, factor, low_freq_factor, high_freq_factor,
                                   original_max_position_embeddings, beta_fast, beta_slow, attention_factor, mscale,
                                   mscale_all_dim, truncate)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(ModelConfig, family, hidden_size, layers, query_heads, key_value_heads, head_dim,
                                   intermediate_size, vocabulary_size, max_positions, rms_norm_eps, tied_head, qkv_bias,
                                   output_bias, mlp_bias, qk_norm, rope, window, bos, eos)

std::string to_json(const ModelSpec& spec) {
    json j = spec.config;
    j["layout"] = spec.layout;
    j["linear"] = {{"short_convolution", spec.linear.short_convolution},
                   {"convolution_width", spec.linear.convolution_width},
                   {"output_gate", spec.linear.output_gate},
                   {"output_norm", spec.linear.output_norm},
                   {"activation", spec.linear.activation},
                   {"rope", spec.linear.rope},
                   {"norm_eps", spec.linear.norm_eps}};
    return j.dump(2);
}

ModelSpec spec_from_json(const std::string& source, const std::string& where) {
    try {
        const json j = json::parse(source);
        ModelSpec spec;
        spec.config = j.get<ModelConfig>();
        spec.layout = j.at("layout").get<Layout>();
        const json& linear = j.at("linear");
        spec.linear.short_convolution = linear.at("short_convolution");
        spec.linear.convolution_width = linear.at("convolution_width");
        spec.linear.output_gate = linear.at("output_gate");
        spec.linear.output_norm = linear.at("output_norm");
        spec.linear.activation = linear.at("activation");
        spec.linear.rope = linear.at("rope");
        spec.linear.norm_eps = linear.at("norm_eps");
        if (int64_t(spec.layout.size()) != spec.config.layers) throw Error("layout does not fit the number of layers");
        return spec;
    } catch (const std::exception& e) {
        throw Error(text(where, ": attribute config is not a model description (", e.what(), ")"),
                    ExitCode::damaged_file);
    }
}

}  // namespace amalgam
