// SPDX-License-Identifier: Apache-2.0
#include "specification/model_spec.h"

#include <nlohmann/json.hpp>

#include "system/error.h"

namespace amalgam {
namespace {

using nlohmann::json;

json rope_to_json(const RopeConfig& rope) {
    return {{"rope_type", rope.type},
            {"rope_theta", rope.theta},
            {"factor", rope.factor},
            {"low_freq_factor", rope.low_freq_factor},
            {"high_freq_factor", rope.high_freq_factor},
            {"original_max_position_embeddings", rope.original_max_position},
            {"beta_fast", rope.beta_fast},
            {"beta_slow", rope.beta_slow},
            {"attention_factor", rope.attention_factor},
            {"mscale", rope.mscale},
            {"mscale_all_dim", rope.mscale_all_dim},
            {"truncate", rope.truncate}};
}

RopeConfig rope_from_json(const json& j) {
    RopeConfig rope;
    rope.type = j.at("rope_type");
    rope.theta = j.at("rope_theta");
    rope.factor = j.at("factor");
    rope.low_freq_factor = j.at("low_freq_factor");
    rope.high_freq_factor = j.at("high_freq_factor");
    rope.original_max_position = j.at("original_max_position_embeddings");
    rope.beta_fast = j.at("beta_fast");
    rope.beta_slow = j.at("beta_slow");
    rope.attention_factor = j.at("attention_factor");
    rope.mscale = j.at("mscale");
    rope.mscale_all_dim = j.at("mscale_all_dim");
    rope.truncate = j.at("truncate");
    return rope;
}

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

std::string to_json(const ModelSpec& spec) {
    const ModelConfig& c = spec.config;
    const json j = {{"family", c.family},
                    {"hidden_size", c.hidden_size},
                    {"layers", c.layers},
                    {"query_heads", c.query_heads},
                    {"key_value_heads", c.key_value_heads},
                    {"head_dim", c.head_dim},
                    {"intermediate_size", c.intermediate_size},
                    {"vocabulary_size", c.vocabulary_size},
                    {"max_positions", c.max_positions},
                    {"rms_norm_eps", c.rms_norm_eps},
                    {"tied_head", c.tied_head},
                    {"qkv_bias", c.qkv_bias},
                    {"output_bias", c.output_bias},
                    {"mlp_bias", c.mlp_bias},
                    {"qk_norm", c.qk_norm},
                    {"rope", rope_to_json(c.rope)},
                    {"window", c.window},
                    {"bos", c.bos},
                    {"eos", c.eos},
                    {"layout", spec.layout},
                    {"linear", linear_to_json(spec)}};
    return j.dump(2);
}

ModelSpec spec_from_json(const std::string& source, const std::string& where) {
    try {
        const json j = json::parse(source);
        ModelSpec spec;
        ModelConfig& c = spec.config;
        c.family = j.at("family");
        c.hidden_size = j.at("hidden_size");
        c.layers = j.at("layers");
        c.query_heads = j.at("query_heads");
        c.key_value_heads = j.at("key_value_heads");
        c.head_dim = j.at("head_dim");
        c.intermediate_size = j.at("intermediate_size");
        c.vocabulary_size = j.at("vocabulary_size");
        c.max_positions = j.at("max_positions");
        c.rms_norm_eps = j.at("rms_norm_eps");
        c.tied_head = j.at("tied_head");
        c.qkv_bias = j.at("qkv_bias");
        c.output_bias = j.at("output_bias");
        c.mlp_bias = j.at("mlp_bias");
        c.qk_norm = j.at("qk_norm");
        c.rope = rope_from_json(j.at("rope"));
        c.window = j.at("window").get<std::vector<int64_t>>();
        c.bos = j.at("bos").get<std::vector<int64_t>>();
        c.eos = j.at("eos").get<std::vector<int64_t>>();
        spec.layout = j.at("layout").get<Layout>();
        linear_from_json(j.at("linear"), spec);
        if (int64_t(spec.layout.size()) != c.layers) throw Error("layout does not fit the number of layers");
        return spec;
    } catch (const std::exception& e) {
        throw Error(text(where, ": attribute config is not a model description (", e.what(), ")"),
                    ExitCode::damaged_file);
    }
}

}  // namespace amalgam
