// SPDX-License-Identifier: Apache-2.0
#include "specification/hugging_face_config.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "specification/config_keys.h"
#include "specification/teacher_family.h"

namespace amalgam {
namespace {

using nlohmann::json;

const TeacherFamily& find_family(const std::string& model_type, const std::string& where) {
    std::string known;
    for (const TeacherFamily& family : teacher_families()) {
        if (family.model_type == model_type) return family;
        known += text(known.empty() ? "" : ", ", family.model_type);
    }
    throw Error(text(where, ": model_type \"", model_type, "\" is not a teacher we can read (known: ", known, ")"),
                ExitCode::bad_input);
}

/// One number or a list of them.
std::vector<int64_t> token_ids(const ConfigKeys& keys, const char* key) {
    if (!keys.has(key)) return {};
    if (keys.object().at(key).is_array()) return keys.get<std::vector<int64_t>>(key);
    return {keys.get<int64_t>(key)};
}

RopeConfig parse_rope(const ConfigKeys& keys, int64_t max_positions) {
    // transformers 4: rope_theta beside rope_scaling (null for none). transformers 5: all in rope_parameters.
    RopeConfig rope;
    rope.rope_theta = keys.get<double>("rope_theta", rope.rope_theta);
    const char* name = keys.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!keys.has(name)) return rope;
    require(keys.object().at(name).is_object(), keys.where(), ": \"", name, "\" is ", keys.object().at(name).dump(),
            " (not an object)");
    const ConfigKeys inner(keys.object().at(name), text(keys.where(), ": ", name));
    rope.rope_type = inner.get<std::string>("rope_type", inner.get<std::string>("type", "default"));
    rope.rope_theta = inner.get<double>("rope_theta", rope.rope_theta);
    require(inner.get<double>("partial_rotary_factor", keys.get<double>("partial_rotary_factor", 1.0)) == 1.0,
            inner.where(), ": partial_rotary_factor other than 1 is not supported (the attention would be wrong)");
    const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
    require(std::find(known.begin(), known.end(), rope.rope_type) != known.end(), inner.where(), ": rope type \"",
            rope.rope_type,
            "\" is not supported (positions would be wrong); supported are default, linear, dynamic, llama3, yarn");
    if (rope.rope_type == "default") return rope;
    // Dynamic scaling begins beyond max_position_embeddings, whatever else is written.
    rope.original_max_position_embeddings =
        rope.rope_type == "dynamic"
            ? max_positions
            : inner.get<int64_t>("original_max_position_embeddings",
                                 keys.get<int64_t>("original_max_position_embeddings", max_positions));
    rope.factor = rope.rope_type == "yarn" && inner.has("original_max_position_embeddings") && !inner.has("factor")
                      ? double(max_positions) / rope.original_max_position_embeddings
                      : inner.get<double>("factor");
    require(rope.factor >= 1.0, inner.where(), ": factor is ", rope.factor, " (must be at least 1)");
    if (rope.rope_type == "llama3") {
        rope.low_freq_factor = inner.get<double>("low_freq_factor");
        rope.high_freq_factor = inner.get<double>("high_freq_factor");
        require(rope.high_freq_factor > rope.low_freq_factor, inner.where(),
                ": high_freq_factor must exceed low_freq_factor");
    }
    rope.beta_fast = inner.get<double>("beta_fast", rope.beta_fast);
    rope.beta_slow = inner.get<double>("beta_slow", rope.beta_slow);
    rope.attention_factor = inner.get<double>("attention_factor", 0.0);
    rope.mscale = inner.get<double>("mscale", 0.0);
    rope.mscale_all_dim = inner.get<double>("mscale_all_dim", 0.0);
    rope.truncate = inner.get<bool>("truncate", true);
    return rope;
}

}  // namespace

ModelConfig parse_config(const json& root, const std::string& where) {
    const ConfigKeys keys(root, where);
    ModelConfig c;
    c.family = keys.get<std::string>("model_type");
    const TeacherFamily& family = find_family(c.family, where);
    c.hidden_size = keys.get<int64_t>("hidden_size");
    c.layers = keys.get<int64_t>("num_hidden_layers");
    c.query_heads = keys.get<int64_t>("num_attention_heads");
    c.key_value_heads = keys.get<int64_t>("num_key_value_heads", c.query_heads);
    c.intermediate_size = keys.get<int64_t>("intermediate_size");
    c.vocabulary_size = keys.get<int64_t>("vocab_size");
    c.max_positions = keys.get<int64_t>("max_position_embeddings", 2048);
    c.rms_norm_eps = keys.get<double>("rms_norm_eps", 1e-6);
    for (const auto& [name, value] : {std::pair{"hidden_size", c.hidden_size},
                                      {"num_hidden_layers", c.layers},
                                      {"num_attention_heads", c.query_heads},
                                      {"num_key_value_heads", c.key_value_heads},
                                      {"intermediate_size", c.intermediate_size},
                                      {"vocab_size", c.vocabulary_size}})
        require(value > 0, where, ": \"", name, "\" is ", value, " (must be positive)");
    require(c.query_heads % c.key_value_heads == 0, where, ": \"num_key_value_heads\" is ", c.key_value_heads,
            " but \"num_attention_heads\" is ", c.query_heads,
            " (heads cannot be grouped evenly); is this the right config?");
    if (keys.has("head_dim")) {
        c.head_dim = keys.get<int64_t>("head_dim");
    } else if (family.default_head_dim) {
        c.head_dim = family.default_head_dim;
    } else {
        require(c.hidden_size % c.query_heads == 0, where, ": \"hidden_size\" is ", c.hidden_size,
                " but \"num_attention_heads\" is ", c.query_heads,
                " and there is no \"head_dim\" (heads have no whole size)");
        c.head_dim = c.hidden_size / c.query_heads;
    }
    require(c.head_dim > 0 && c.head_dim % 2 == 0, where, ": \"head_dim\" is ", c.head_dim,
            " (rotary embedding needs an even one)");
    const auto activation = keys.get<std::string>("hidden_act", "silu");
    require(activation == "silu" || activation == "swish", where, ": \"hidden_act\" is \"", activation,
            "\" (only silu is supported)");
    c.tied_head = keys.get<bool>("tie_word_embeddings", false);
    c.qkv_bias = c.output_bias = keys.get<bool>("attention_bias", false);
    c.window.assign(size_t(c.layers), 0);
    c.rope = parse_rope(keys, c.max_positions);
    family.parse(keys, c);
    c.bos = token_ids(keys, "bos_token_id");
    c.eos = token_ids(keys, "eos_token_id");
    return c;
}

ModelConfig read_config(const std::filesystem::path& folder) {
    const auto path = folder / "config.json";
    std::ifstream stream(path);
    require(stream.good(), path.string(), ": cannot be read (a teacher is a Hugging Face folder with a config.json)");
    const json root = json::parse(stream, nullptr, false);
    require(!root.is_discarded() && root.is_object(), path.string(), ": is not valid JSON");
    return parse_config(root, path.string());
}

}  // namespace amalgam
