// SPDX-License-Identifier: Apache-2.0
#include "specification/model_spec.h"

#include <nlohmann/json.hpp>

#include "system/error.h"

namespace amalgam {

using nlohmann::json;

namespace {

/// The options of the linear mixer, and the eps of its output norm beside them.
json linear_to_json(const ModelSpec& spec) {
    json linear = json::object();
    for (const auto& [name, value] : spec.options)
        std::visit([&, &name = name](const auto& one) { linear[name] = one; }, value);
    linear["norm_eps"] = spec.output_norm_eps;
    return linear;
}

void linear_from_json(const json& linear, ModelSpec& spec) {
    spec.output_norm_eps = linear.at("norm_eps");
    for (const auto& [name, value] : linear.items()) {
        if (name == "norm_eps") continue;
        if (value.is_boolean())
            spec.options[name] = value.get<bool>();
        else if (value.is_number_integer())
            spec.options[name] = value.get<int64_t>();
        else if (value.is_number())
            spec.options[name] = value.get<double>();
        else if (value.is_string())
            spec.options[name] = value.get<std::string>();
        else
            spec.options[name] = value.get<std::vector<int64_t>>();
    }
}

}  // namespace

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
    j["linear"] = linear_to_json(spec);
    return j.dump(2);
}

ModelSpec spec_from_json(const std::string& source, const std::string& where) {
    try {
        const json j = json::parse(source);
        ModelSpec spec;
        spec.config = j.get<ModelConfig>();
        spec.layout = j.at("layout").get<Layout>();
        linear_from_json(j.at("linear"), spec);
        if (int64_t(spec.layout.size()) != spec.config.layers) throw Error("layout does not fit the number of layers");
        return spec;
    } catch (const std::exception& e) {
        throw Error(text(where, ": attribute config is not a model description (", e.what(), ")"),
                    ExitCode::damaged_file);
    }
}

}  // namespace amalgam
