// SPDX-License-Identifier: Apache-2.0
#include "specification/config.h"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "system/error.h"

namespace amalgam {
namespace {

using nlohmann::json;

/// Access to one JSON object with errors that name file and key.
class Keys {
  public:
    Keys(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

    bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }

    template <class T>
    T get(const char* key) const {
        require(has(key), where_, ": \"", key, "\" is missing (the model cannot be built without it)");
        return convert<T>(key);
    }

    template <class T>
    T get(const char* key, T fallback) const {
        return has(key) ? convert<T>(key) : fallback;
    }

    const std::string& where() const { return where_; }

  private:
    template <class T>
    T convert(const char* key) const {
        try {
            return object_.at(key).get<T>();
        } catch (const json::exception&) {
            throw Error(text(where_, ": \"", key, "\" is ", object_.at(key).dump(), " (of the wrong type)"),
                        ExitCode::bad_input);
        }
    }
    const json& object_;
    std::string where_;
};

/// One number or a list of them.
std::vector<int64_t> token_ids(const json& root, const std::string& where, const char* key) {
    const Keys keys(root, where);
    if (!keys.has(key)) return {};
    if (root.at(key).is_array()) return keys.get<std::vector<int64_t>>(key);
    return {keys.get<int64_t>(key)};
}

RopeConfig parse_rope(const json& root, const std::string& where, int64_t max_positions) {
    // transformers 4: rope_theta beside rope_scaling (null for none). transformers 5: all in rope_parameters.
    const Keys keys(root, where);
    RopeConfig rope;
    rope.theta = keys.get<double>("rope_theta", rope.theta);
    const char* name = keys.has("rope_parameters") ? "rope_parameters" : "rope_scaling";
    if (!keys.has(name)) return rope;
    require(root.at(name).is_object(), where, ": \"", name, "\" is ", root.at(name).dump(), " (not an object)");
    const Keys inner(root.at(name), text(where, ": ", name));
    rope.type = inner.get<std::string>("rope_type", inner.get<std::string>("type", "default"));
    rope.theta = inner.get<double>("rope_theta", rope.theta);
    require(inner.get<double>("partial_rotary_factor", keys.get<double>("partial_rotary_factor", 1.0)) == 1.0,
            inner.where(), ": partial_rotary_factor other than 1 is not supported (the attention would be wrong)");
    const std::vector<std::string> known = {"default", "linear", "dynamic", "llama3", "yarn"};
    require(std::find(known.begin(), known.end(), rope.type) != known.end(), inner.where(), ": rope type \"", rope.type,
            "\" is not supported (positions would be wrong); supported are default, linear, dynamic, llama3, yarn");
    if (rope.type == "default") return rope;
    // Dynamic scaling begins beyond max_position_embeddings, whatever else is written.
    rope.original_max_position =
        rope.type == "dynamic"
            ? max_positions
            : inner.get<int64_t>("original_max_position_embeddings",
                                 keys.get<int64_t>("original_max_position_embeddings", max_positions));
    rope.factor = rope.type == "yarn" && inner.has("original_max_position_embeddings") && !inner.has("factor")
                      ? double(max_positions) / rope.original_max_position
                      : inner.get<double>("factor");
    require(rope.factor >= 1.0, inner.where(), ": factor is ", rope.factor, " (must be at least 1)");
    if (rope.type == "llama3") {
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

std::vector<int64_t> parse_windows(const json& root, const std::string& where, const ModelConfig& config) {
    std::vector<int64_t> windows(config.layers, 0);
    const Keys keys(root, where);
    // Llama has no window; Qwen2 and Qwen3 use theirs only where use_sliding_window says so.
    const bool used =
        config.family != "llama" && keys.get<bool>("use_sliding_window", false) && keys.has("sliding_window");
    if (!used) return windows;
    const int64_t window = keys.get<int64_t>("sliding_window");
    require(window > 0, where, ": sliding_window is ", window, " (must be positive)");
    if (keys.has("layer_types")) {
        const auto types = keys.get<std::vector<std::string>>("layer_types");
        require(int64_t(types.size()) == config.layers, where, ": layer_types has ", types.size(), " entries for ",
                config.layers, " layers");
        for (int64_t i = 0; i < config.layers; ++i) {
            require(types[i] == "full_attention" || types[i] == "sliding_attention", where, ": layer_types[", i,
                    "] is \"", types[i], "\" (known: full_attention, sliding_attention)");
            if (types[i] == "sliding_attention") windows[i] = window;
        }
    } else {
        const int64_t first = keys.get<int64_t>("max_window_layers", config.layers);
        require(first >= 0, where, ": max_window_layers is ", first, " (must not be negative)");
        for (int64_t i = first; i < config.layers; ++i) windows[i] = window;
    }
    return windows;
}

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

ModelConfig parse_config(const json& root, const std::string& where) {
    const Keys keys(root, where);
    ModelConfig c;
    c.family = keys.get<std::string>("model_type");
    require(c.family == "llama" || c.family == "qwen2" || c.family == "qwen3", where, ": model_type \"", c.family,
            "\" is not a teacher we can read (known: llama, qwen2, qwen3)");
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
    } else if (c.family == "qwen3") {
        c.head_dim = 128;  // transformers' default, which does not follow from the other sizes
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
    const bool attention_bias = keys.get<bool>("attention_bias", false);
    c.qkv_bias = c.family == "qwen2" || attention_bias;  // Qwen2 always has them, and never on the output
    c.output_bias = c.family != "qwen2" && attention_bias;
    c.mlp_bias = c.family == "llama" && keys.get<bool>("mlp_bias", false);
    c.qk_norm = c.family == "qwen3";
    c.rope = parse_rope(root, where, c.max_positions);
    c.window = parse_windows(root, where, c);
    c.bos = token_ids(root, where, "bos_token_id");
    c.eos = token_ids(root, where, "eos_token_id");
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

Layout all_linear(int64_t layers, const std::string& mixer) {
    return Layout(layers, mixer);
}

Layout all_softmax(int64_t layers) {
    return Layout(layers, softmax_mixer);
}

Layout keep_softmax(int64_t layers, const std::string& mixer, const std::vector<int64_t>& kept) {
    Layout layout = all_linear(layers, mixer);
    for (int64_t layer : kept) layout.at(layer) = softmax_mixer;
    return layout;
}

std::vector<int64_t> softmax_layers(const Layout& layout) {
    std::vector<int64_t> layers;
    for (size_t i = 0; i < layout.size(); ++i)
        if (layout[i] == softmax_mixer) layers.push_back(int64_t(i));
    return layers;
}

std::string linear_mixer(const Layout& layout) {
    for (const auto& name : layout)
        if (name != softmax_mixer) return name;
    return "";
}

std::string describe(const Layout& layout) {
    const auto kept = softmax_layers(layout);
    if (kept.size() == layout.size()) return text("softmax x ", layout.size());
    std::string result = text(linear_mixer(layout), " x ", layout.size() - kept.size());
    if (kept.empty()) return result;
    result += ", softmax at {";
    for (size_t i = 0; i < kept.size(); ++i) result += text(i ? ", " : "", kept[i]);
    return result + "}";
}

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
