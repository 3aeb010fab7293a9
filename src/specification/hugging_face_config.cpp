// SPDX-License-Identifier: Apache-2.0
#include "specification/hugging_face_config.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "specification/config_keys.h"
#include "specification/rope_parameters.h"
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

/// What changes the numbers of a model in ways that nothing here computes.
void refuse_what_is_not_computed(const ConfigKeys& keys) {
    for (const char* key : {"quantization_config", "compression_config"}) {
        if (!keys.has(key)) continue;
        const json& value = keys.object().at(key);
        const std::string method = value.is_object() ? value.value("quant_method", json("unknown method")).dump() : "";
        throw Error(text(keys.where(), ": \"", key, "\" says that the weights are quantised (", method,
                         "); take the checkpoint they were made from, or write them out in bfloat16 first"),
                    ExitCode::bad_input);
    }
    require(!keys.has("per_layer_config"), keys.where(),
            ": \"per_layer_config\" is given (layers that differ in size are not supported)");
    if (keys.object().contains("is_causal"))
        require(keys.object().at("is_causal") == true, keys.where(), ": \"is_causal\" is ",
                keys.object().at("is_causal").dump(), " (attention to later tokens is not supported)");
    for (const char* key : {"dtype", "torch_dtype"}) {
        if (!keys.has(key)) continue;
        const auto name = keys.get<std::string>(key);
        const std::vector<std::string> known = {"float32", "bfloat16", "float16", "float64", "float", "half", "double"};
        require(std::find(known.begin(), known.end(), name) != known.end(), keys.where(), ": \"", key, "\" is \"", name,
                "\" (weights are float32, bfloat16, float16 or float64)");
    }
}

/// Sizes are multiplied with each other: beyond this no model fits into any memory, and products overflow.
constexpr int64_t largest_size = int64_t{1} << 31, most_layers = 1 << 16;

}  // namespace

ModelConfig parse_config(const json& root, const std::string& where) {
    const ConfigKeys keys(root, where);
    ModelConfig c;
    c.family = keys.get<std::string>("model_type");
    const TeacherFamily& family = find_family(c.family, where);
    expect_declared_types(keys, family);
    refuse_what_is_not_computed(keys);
    c.hidden_size = keys.get<int64_t>("hidden_size");
    c.layers = keys.get<int64_t>("num_hidden_layers");
    c.query_heads = keys.get<int64_t>("num_attention_heads");
    const bool every_head = keys.is_null("num_key_value_heads") || family.default_key_value_heads == 0;
    c.key_value_heads =
        keys.get<int64_t>("num_key_value_heads", every_head ? c.query_heads : family.default_key_value_heads);
    c.intermediate_size = keys.get<int64_t>("intermediate_size");
    c.vocabulary_size = keys.get<int64_t>("vocab_size");
    c.max_positions = keys.get<int64_t>("max_position_embeddings", family.default_max_positions);
    c.rms_norm_eps = keys.get<double>("rms_norm_eps", 1e-6);
    for (const auto& [name, value] : {std::pair{"hidden_size", c.hidden_size},
                                      {"num_hidden_layers", c.layers},
                                      {"num_attention_heads", c.query_heads},
                                      {"num_key_value_heads", c.key_value_heads},
                                      {"intermediate_size", c.intermediate_size},
                                      {"vocab_size", c.vocabulary_size}})
        require(value > 0 && value<largest_size, where, ": \"", name, "\" is ", value, value> 0
                    ? " (no memory holds that)"
                    : " (must be positive)");
    require(c.layers <= most_layers, where, ": \"num_hidden_layers\" is ", c.layers, " (no model has so many)");
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
    require(c.head_dim > 0 && c.head_dim < largest_size && c.head_dim % 2 == 0, where, ": \"head_dim\" is ", c.head_dim,
            " (rotary embedding needs an even one)");
    require(c.rms_norm_eps >= 0.0, where, ": \"rms_norm_eps\" is ", c.rms_norm_eps, " (must not be negative)");
    const auto activation = keys.get<std::string>("hidden_act", "silu");
    require(activation == "silu" || activation == "swish", where, ": \"hidden_act\" is \"", activation,
            "\" (only silu is supported)");
    c.tied_head = keys.get<bool>("tie_word_embeddings", false);
    if (keys.has("attention_bias")) c.qkv_bias = c.output_bias = keys.object().at("attention_bias") == true;
    c.window.assign(size_t(c.layers), 0);
    c.rope = parse_rope(keys, c.max_positions);
    require(c.rope.rope_type != "dynamic" || c.head_dim > 2, where, ": \"head_dim\" is ", c.head_dim,
            " (dynamic RoPE scaling divides by head_dim - 2)");
    for (const std::string& type : keys.get<std::vector<std::string>>("mlp_layer_types", {}))
        require(type == "dense", where, ": mlp_layer_types holds \"", type, "\" (only dense MLPs are supported)");
    const int64_t padding = keys.get<int64_t>("pad_token_id", 0);
    require(padding >= -c.vocabulary_size && padding < c.vocabulary_size, where, ": \"pad_token_id\" is ", padding,
            " but \"vocab_size\" is ", c.vocabulary_size, " (transformers cannot build its embedding)");
    family.parse(keys, c);
    c.bos = token_ids(keys, "bos_token_id");
    c.eos = token_ids(keys, "eos_token_id");
    return c;
}

ModelConfig read_config(const std::filesystem::path& folder) {
    const auto path = folder / "config.json";
    std::error_code unreadable;
    require(!std::filesystem::is_directory(path, unreadable), path.string(), ": is a folder (it should be a file)");
    std::ifstream stream(path);
    require(stream.good(), path.string(), ": cannot be read (a teacher is a Hugging Face folder with a config.json)");
    const std::string source((std::istreambuf_iterator<char>(stream)), {});
    require(!source.starts_with("\xef\xbb\xbf"), path.string(),
            ": begins with a byte order mark (transformers cannot read it); save it as UTF-8 without");
    json root;
    try {
        root = json::parse(source);
    } catch (const json::exception& error) {
        const auto* syntax = dynamic_cast<const json::parse_error*>(&error);
        throw Error(text(path.string(), ": is not valid JSON (",
                         syntax ? text("byte ", syntax->byte, " of ", source.size()) : "a number is too large",
                         "); is it complete?"),
                    ExitCode::bad_input);
    }
    require(root.is_object(), path.string(), ": is not valid JSON for a config (an object is needed)");
    return parse_config(root, path.string());
}

}  // namespace amalgam
