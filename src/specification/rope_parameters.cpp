// SPDX-License-Identifier: Apache-2.0
#include "specification/rope_parameters.h"

#include <cmath>

namespace amalgam {
namespace {

using nlohmann::json;

/// Python's truth value: what makes `rope_scaling or rope_parameters` take the first.
bool is_something(const ConfigKeys& keys, const char* name) {
    if (!keys.has(name)) return false;
    const json& value = keys.object().at(name);
    require(value.is_object(), keys.where(), ": \"", name, "\" is ", value.dump(), " (not an object)");
    return !value.empty();
}

/// A number that must be there; null is none.
double number(const ConfigKeys& rope, const char* key) {
    return rope.get<double>(key);
}

double positive(const ConfigKeys& rope, const char* key, double value) {
    require(value > 0.0 && std::isfinite(value), rope.where(), ": \"", key, "\" is ", value, " (must be positive)");
    return value;
}

/// Zero and null stand for the default, as in transformers' `get(key) or default`.
double number_or(const ConfigKeys& rope, const char* key, double otherwise) {
    const double value = rope.get<double>(key, 0.0);
    return value == 0.0 ? otherwise : positive(rope, key, value);
}

int64_t original_positions(const ConfigKeys& keys, const ConfigKeys& rope, int64_t max_positions) {
    const char* name = "original_max_position_embeddings";
    // Beside the sizes it counts more than among the rope parameters (Phi-3 wrote it there).
    const ConfigKeys& place = keys.object().contains(name) ? keys : rope;
    require(!place.is_null(name), place.where(), ": \"", name, "\" is null (transformers takes no default for it)");
    const double value = place.get<double>(name, double(max_positions));
    require(value >= 1.0 && value == std::floor(value) && value < 1e15, place.where(), ": \"", name, "\" is ", value,
            " (must be a positive whole number)");
    return int64_t(value);
}

void parse_yarn(const ConfigKeys& given, int64_t max_positions, RopeConfig& rope) {
    // With null, the ratio of the contexts; without the key transformers refuses.
    if (given.is_null("factor")) rope.factor = double(max_positions) / double(rope.original_max_position_embeddings);
    rope.beta_fast = number_or(given, "beta_fast", rope.beta_fast);
    rope.beta_slow = number_or(given, "beta_slow", rope.beta_slow);
    if (given.has("attention_factor")) {
        rope.attention_factor = given.get<double>("attention_factor");
        positive(given, "attention_factor", rope.attention_factor);
    }
    for (const auto& [key, value] : {std::pair("mscale", &rope.mscale), {"mscale_all_dim", &rope.mscale_all_dim}}) {
        *value = given.get<double>(key, 0.0);  // zero is as if it were not there
        require(*value >= 0.0, given.where(), ": \"", key, "\" is ", *value, " (must not be negative)");
    }
    rope.truncate = !given.is_null("truncate") && given.get<bool>("truncate", true);
    require(rope.rope_theta != 1.0, given.where(), ": rope_theta is 1 (YaRN divides by its logarithm)");
}

}  // namespace

RopeConfig parse_rope(const ConfigKeys& keys, int64_t max_positions) {
    RopeConfig rope;
    const char* name = is_something(keys, "rope_scaling") ? "rope_scaling" : "rope_parameters";
    const json none = json::object();
    const ConfigKeys given(is_something(keys, name) ? keys.object().at(name) : none, text(keys.where(), ": ", name));
    const ConfigKeys& theta = given.object().contains("rope_theta") ? given : keys;
    rope.rope_theta = positive(theta, "rope_theta", theta.get_unless_absent<double>("rope_theta", rope.rope_theta));
    for (const auto& [key, value] : given.object().items())
        require(!value.is_object(), given.where(), ": \"", key,
                "\" is an object (position embeddings for each layer type are not supported by this family)");
    for (const char* key : {"type", "rope_type"})  // the second one counts more; null is no type
        if (given.object().contains(key)) rope.rope_type = given.get<std::string>(key);
    const ConfigKeys& partial = given.object().contains("partial_rotary_factor") ? given : keys;
    require(partial.get<double>("partial_rotary_factor", 1.0) == 1.0, partial.where(),
            ": partial_rotary_factor other than 1 is not supported (the attention would be wrong)");
    require(!given.is_null("partial_rotary_factor"), given.where(), ": partial_rotary_factor is null; leave it out");
    const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
    require(std::find(known.begin(), known.end(), rope.rope_type) != known.end(), given.where(), ": rope type \"",
            rope.rope_type,
            "\" is not supported (positions would be wrong); supported are default, linear, dynamic, llama3, yarn");
    if (rope.rope_type == "default") return rope;

    require(max_positions > 0, keys.where(), ": max_position_embeddings is ", max_positions, " (must be positive)");
    const bool is_yarn = rope.rope_type == "yarn";
    if (is_yarn || rope.rope_type == "llama3")
        rope.original_max_position_embeddings = original_positions(keys, given, max_positions);
    else if (rope.rope_type == "dynamic")  // begins beyond max_position_embeddings, whatever else is written
        rope.original_max_position_embeddings = max_positions;
    if (is_yarn)
        require(given.object().contains("factor"), given.where(),
                ": \"factor\" is missing (transformers refuses YaRN without it; null stands for the ratio of the "
                "contexts)");
    if (!is_yarn || !given.is_null("factor")) rope.factor = number(given, "factor");
    if (is_yarn) parse_yarn(given, max_positions, rope);
    require(rope.factor >= 1.0 && std::isfinite(rope.factor), given.where(), ": factor is ", rope.factor,
            " (must be at least 1)");
    if (rope.rope_type == "llama3") {
        rope.low_freq_factor = positive(given, "low_freq_factor", number(given, "low_freq_factor"));
        rope.high_freq_factor = positive(given, "high_freq_factor", number(given, "high_freq_factor"));
        require(rope.high_freq_factor > rope.low_freq_factor, given.where(),
                ": high_freq_factor must exceed low_freq_factor");
    }
    return rope;
}

}  // namespace amalgam
