// SPDX-License-Identifier: Apache-2.0
#include "specification/hugging_face_config.h"

#include <nlohmann/json.hpp>

#include "../storage/temporary_folder.h"
#include "specification/teacher_family.h"

namespace amalgam {
namespace {

using nlohmann::json;
using test::expect_error;

json minimal(const std::string& family = "llama") {
    json root = {{"model_type", family},     {"hidden_size", 64},       {"num_hidden_layers", 4},
                 {"num_attention_heads", 8}, {"intermediate_size", 96}, {"vocab_size", 100}};
    if (family != "llama") root["num_key_value_heads"] = 8;  // the Qwen families' default is 32
    return root;
}

ModelConfig parse(const json& root) {
    return parse_config(root, "folder/config.json");
}

/// Refused as bad input, with the file and all of `parts` in the message.
void expect_refused(const json& root, std::initializer_list<std::string> parts) {
    expect_error([&] { parse(root); }, ExitCode::bad_input, {"folder/config.json"});
    expect_error([&] { parse(root); }, ExitCode::bad_input, parts);
}

template <class Value>
json with(json root, const std::string& key, const Value& value) {
    root[key] = value;
    return root;
}

TEST(Config, dynamic_scaling_begins_beyond_max_position_embeddings) {
    json root = minimal();
    root["max_position_embeddings"] = 512;
    root["rope_scaling"] = {{"rope_type", "dynamic"}, {"factor", 2.0}, {"original_max_position_embeddings", 64}};
    EXPECT_EQ(parse(root).rope.original_max_position_embeddings, 512) << "transformers does not read the other key";
}

TEST(Config, defaults) {
    const ModelConfig c = parse(minimal());
    EXPECT_EQ(c.family, "llama");
    EXPECT_EQ(c.key_value_heads, 8);
    EXPECT_EQ(c.head_dim, 8);
    EXPECT_EQ(c.max_positions, 2048);
    EXPECT_DOUBLE_EQ(c.rms_norm_eps, 1e-6);
    EXPECT_FALSE(c.tied_head);
    EXPECT_EQ(c.rope.rope_type, "default");
    EXPECT_DOUBLE_EQ(c.rope.rope_theta, 10000.0);
    EXPECT_EQ(c.window, std::vector<int64_t>(4, 0));
    EXPECT_TRUE(c.bos.empty());
    EXPECT_TRUE(c.eos.empty());
}

TEST(Config, every_family_of_the_table_is_read_and_named_where_none_fits) {
    for (const TeacherFamily& family : teacher_families()) {
        EXPECT_EQ(parse(minimal(std::string(family.model_type))).family, family.model_type);
        expect_refused(minimal("mamba"), {std::string(family.model_type)});
    }
    expect_refused(minimal("mamba"), {"known: llama, qwen2, qwen3)"});
}

TEST(Config, families_differ_in_biases_and_norms) {
    const ModelConfig llama = parse(minimal("llama")), qwen2 = parse(minimal("qwen2")), qwen3 = parse(minimal("qwen3"));
    EXPECT_FALSE(llama.qkv_bias || llama.output_bias || llama.mlp_bias || llama.qk_norm);
    EXPECT_TRUE(qwen2.qkv_bias);
    EXPECT_FALSE(qwen2.output_bias || qwen2.qk_norm);
    EXPECT_TRUE(qwen3.qk_norm);
    EXPECT_EQ(qwen3.head_dim, 128) << "the default of transformers, whatever hidden_size / heads is";
    EXPECT_FALSE(qwen3.qkv_bias || qwen3.output_bias);

    const ModelConfig biased = parse(with(with(minimal("llama"), "attention_bias", true), "mlp_bias", true));
    EXPECT_TRUE(biased.qkv_bias && biased.output_bias && biased.mlp_bias);
}

TEST(Config, scaling_in_the_style_of_transformers_4) {
    json root = with(minimal(), "rope_theta", 500000.0);
    EXPECT_DOUBLE_EQ(parse(root).rope.rope_theta, 500000.0);
    root["rope_scaling"] = nullptr;
    EXPECT_EQ(parse(root).rope.rope_type, "default");
    root["rope_scaling"] = {{"rope_type", "llama3"},
                            {"factor", 8.0},
                            {"low_freq_factor", 1.0},
                            {"high_freq_factor", 4.0},
                            {"original_max_position_embeddings", 8192}};
    const RopeConfig rope = parse(root).rope;
    EXPECT_EQ(rope.rope_type, "llama3");
    EXPECT_DOUBLE_EQ(rope.rope_theta, 500000.0);
    EXPECT_DOUBLE_EQ(rope.factor, 8.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 8192);
    root["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};  // the older name of the key
    EXPECT_EQ(parse(root).rope.rope_type, "linear");
    EXPECT_DOUBLE_EQ(parse(root).rope.factor, 2.0);
}

TEST(Config, scaling_in_the_style_of_transformers_5) {
    json root = minimal("qwen2");
    root["rope_parameters"] = {{"rope_type", "yarn"},
                               {"rope_theta", 1000000.0},
                               {"factor", 4.0},
                               {"original_max_position_embeddings", 512},
                               {"truncate", false}};
    const RopeConfig rope = parse(root).rope;
    EXPECT_EQ(rope.rope_type, "yarn");
    EXPECT_DOUBLE_EQ(rope.rope_theta, 1000000.0);
    EXPECT_EQ(rope.original_max_position_embeddings, 512);
    EXPECT_FALSE(rope.truncate);
    root["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7.0}};
    root["rope_theta"] = 10000.0;  // both are written at times: the newer place counts
    EXPECT_DOUBLE_EQ(parse(root).rope.rope_theta, 7.0);
}

TEST(Config, yarn_takes_its_factor_from_the_contexts) {
    json root = with(minimal(), "max_position_embeddings", 2048);
    root["rope_scaling"] = {{"rope_type", "yarn"}, {"original_max_position_embeddings", 512}, {"factor", nullptr}};
    EXPECT_DOUBLE_EQ(parse(root).rope.factor, 4.0);
    root["rope_scaling"].erase("factor");
    expect_refused(root, {"rope_scaling", "factor", "missing"});
}

TEST(Config, rope_scaling_counts_more_than_rope_parameters) {
    json root = with(minimal("qwen2"), "rope_parameters", json{{"rope_type", "default"}, {"rope_theta", 1e6}});
    root["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
    EXPECT_EQ(parse(root).rope.rope_type, "linear");
    EXPECT_DOUBLE_EQ(parse(root).rope.rope_theta, 10000.0) << "the other object is not read at all";
    for (const json& nothing : {json(nullptr), json::object()}) {
        root["rope_scaling"] = nothing;
        EXPECT_DOUBLE_EQ(parse(root).rope.rope_theta, 1e6);
    }
}

TEST(Config, original_positions_beside_the_sizes_count_more) {
    json root = with(minimal(), "max_position_embeddings", 256);
    root["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
    EXPECT_EQ(parse(root).rope.original_max_position_embeddings, 256);
    root["rope_parameters"]["original_max_position_embeddings"] = 64;
    EXPECT_EQ(parse(root).rope.original_max_position_embeddings, 64);
    root["original_max_position_embeddings"] = 32;
    EXPECT_EQ(parse(root).rope.original_max_position_embeddings, 32);
    for (const json& bad : {json(nullptr), json(0), json(20.5), json("32")})
        expect_refused(with(root, "original_max_position_embeddings", bad), {"original_max_position_embeddings"});
}

TEST(Config, zeros_and_nulls_of_yarn) {
    json root = minimal();
    root["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 4.0},
                               {"beta_fast", 0},      {"beta_slow", nullptr},
                               {"mscale", 0},         {"mscale_all_dim", nullptr},
                               {"truncate", nullptr}, {"original_max_position_embeddings", 64}};
    const RopeConfig rope = parse(root).rope;
    EXPECT_DOUBLE_EQ(rope.beta_fast, 32.0);
    EXPECT_DOUBLE_EQ(rope.beta_slow, 1.0);
    EXPECT_FALSE(rope.truncate) << "null is false";
    root["rope_parameters"]["attention_factor"] =
        0.0;  // not the default in transformers, but a model without attention
    expect_refused(root, {"attention_factor"});
    root["rope_parameters"]["attention_factor"] = nullptr;
    EXPECT_DOUBLE_EQ(parse(root).rope.attention_factor, 0.0);
}

TEST(Config, parameters_for_each_layer_type_are_refused) {
    json root = minimal("qwen3");
    root["rope_parameters"] = {{"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}}};
    expect_refused(root, {"rope_parameters", "full_attention"});
}

TEST(Config, types_are_those_that_transformers_takes) {
    expect_refused(with(minimal(), "num_hidden_layers", 4.0), {"num_hidden_layers", "4.0"});
    expect_refused(with(minimal(), "num_hidden_layers", true), {"num_hidden_layers"});
    expect_refused(with(minimal(), "rms_norm_eps", 1), {"rms_norm_eps"});
    expect_refused(with(minimal(), "attention_bias", 1), {"attention_bias"});
    expect_refused(with(minimal(), "attention_bias", nullptr), {"attention_bias", "null"});
    expect_refused(with(minimal("qwen3"), "head_dim", nullptr), {"head_dim"});
    expect_refused(with(minimal(), "rope_theta", nullptr), {"rope_theta"});
    expect_refused(with(minimal(), "hidden_size", int64_t{1} << 40), {"hidden_size"});
    EXPECT_EQ(parse(with(minimal(), "head_dim", nullptr)).head_dim, 8) << "Llama takes null for its default";
    EXPECT_TRUE(parse(with(minimal("qwen2"), "attention_bias", "yes")).qkv_bias) << "no key of Qwen2: not looked at";
}

TEST(Config, what_would_be_another_model_is_refused) {
    expect_refused(with(minimal(), "quantization_config", json{{"quant_method", "gptq"}}), {"quantised", "gptq"});
    expect_refused(with(minimal(), "is_causal", false), {"is_causal"});
    expect_refused(with(minimal(), "per_layer_config", json{{"0", {{"head_dim", 4}}}}), {"per_layer_config"});
    expect_refused(with(minimal(), "torch_dtype", "int8"), {"torch_dtype", "int8"});
    expect_refused(with(minimal(), "pad_token_id", 100), {"pad_token_id", "vocab_size"});
    EXPECT_EQ(parse(with(minimal(), "quantization_config", nullptr)).layers, 4);
}

TEST(Config, defaults_of_the_qwen_families) {
    json root = minimal("qwen2");
    EXPECT_EQ(parse(root).max_positions, 32768);
    root["num_key_value_heads"] = nullptr;
    EXPECT_EQ(parse(root).key_value_heads, 8) << "null: one for each query head";
    root.erase("num_key_value_heads");
    expect_refused(root, {"num_key_value_heads", "32"});
    root["num_attention_heads"] = 64;
    root["hidden_size"] = 128;
    EXPECT_EQ(parse(root).key_value_heads, 32);
}

TEST(Config, windows) {
    json root = minimal("qwen2");
    root["sliding_window"] = 16;
    root["max_window_layers"] = 1;
    EXPECT_EQ(parse(root).window, std::vector<int64_t>(4, 0)) << "use_sliding_window is false unless given";
    root["use_sliding_window"] = true;
    EXPECT_EQ(parse(root).window, (std::vector<int64_t>{0, 16, 16, 16}));
    root["layer_types"] = {"full_attention", "sliding_attention", "full_attention", "sliding_attention"};
    EXPECT_EQ(parse(root).window, (std::vector<int64_t>{0, 16, 0, 16}));
    root["model_type"] = "llama";
    expect_refused(root, {"layer_types", "sliding_attention"});
    root.erase("layer_types");
    EXPECT_EQ(parse(root).window, std::vector<int64_t>(4, 0)) << "Llama knows no window";
}

TEST(Config, defaults_of_windows) {
    json root = with(with(minimal("qwen3"), "use_sliding_window", true), "num_hidden_layers", 30);
    std::vector<int64_t> last_two(30, 0);
    last_two[28] = last_two[29] = 4096;
    EXPECT_EQ(parse(root).window, last_two) << "from layer 28 on, 4096 tokens";
    root["sliding_window"] = nullptr;
    EXPECT_EQ(parse(root).window, std::vector<int64_t>(30, 0));
}

TEST(Config, layer_types_without_a_window_or_of_another_kind_are_refused) {
    json root = minimal("qwen3");
    root["layer_types"] = {"full_attention", "full_attention", "linear_attention", "full_attention"};
    expect_refused(root, {"layer_types[2]", "linear_attention"});
    root["layer_types"][2] = "sliding_attention";
    expect_refused(root, {"layer_types[2]", "use_sliding_window"});
    root["layer_types"][2] = "attention";  // its earlier name
    EXPECT_EQ(parse(root).window, std::vector<int64_t>(4, 0));
}

TEST(Config, token_ids_are_one_or_many) {
    json root = with(with(minimal(), "bos_token_id", 3), "eos_token_id", std::vector<int>{5, 7});
    EXPECT_EQ(parse(root).bos, (std::vector<int64_t>{3}));
    EXPECT_EQ(parse(root).eos, (std::vector<int64_t>{5, 7}));
}

TEST(Config, missing_keys_are_named) {
    for (const char* key :
         {"model_type", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"}) {
        json root = minimal();
        root.erase(key);
        expect_refused(root, {key, "missing"});
    }
}

TEST(Config, wrong_types_are_named) {
    expect_refused(with(minimal(), "hidden_size", "large"), {"hidden_size", "large"});
    expect_refused(with(minimal(), "tie_word_embeddings", 3.5), {"tie_word_embeddings"});
    expect_refused(with(minimal(), "eos_token_id", "end"), {"eos_token_id"});
    expect_refused(with(minimal(), "rope_scaling", "yarn"), {"rope_scaling"});
    expect_refused(with(with(minimal("qwen2"), "use_sliding_window", "yes"), "sliding_window", 4),
                   {"use_sliding_window"});
}

TEST(Config, sizes_must_fit_together) {
    expect_refused(with(minimal(), "vocab_size", 0), {"vocab_size", "positive"});
    expect_refused(with(minimal(), "hidden_size", -64), {"hidden_size", "positive"});
    expect_refused(with(minimal(), "num_key_value_heads", 3), {"num_key_value_heads", "num_attention_heads"});
    expect_refused(with(minimal(), "hidden_size", 60), {"hidden_size", "head_dim"});
    expect_refused(with(minimal(), "head_dim", 7), {"head_dim", "7"});
    EXPECT_EQ(parse(with(minimal(), "head_dim", 128)).head_dim, 128) << "needs not be hidden_size / heads";
}

TEST(Config, what_is_not_supported_is_refused) {
    expect_refused(minimal("mamba"), {"model_type", "mamba", "qwen3"});
    expect_refused(with(minimal(), "hidden_act", "gelu"), {"hidden_act", "gelu"});
    expect_refused(with(minimal(), "rope_scaling", json{{"rope_type", "longrope"}, {"factor", 2.0}}), {"longrope"});
    expect_refused(with(minimal(), "rope_scaling", json{{"rope_type", "linear"}}), {"rope_scaling", "factor"});
    expect_refused(with(minimal(), "rope_scaling", json{{"rope_type", "linear"}, {"factor", 0.5}}), {"factor"});
    expect_refused(with(minimal(), "rope_scaling", json{{"rope_type", "llama3"}, {"factor", 8.0}}),
                   {"low_freq_factor"});
    expect_refused(with(minimal(), "rope_parameters", json{{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}),
                   {"partial_rotary_factor"});
}

TEST(Config, impossible_windows_are_refused) {
    json root = with(with(minimal("qwen3"), "use_sliding_window", true), "sliding_window", 0);
    expect_refused(root, {"sliding_window"});
    root["sliding_window"] = 8;
    root["layer_types"] = {"full_attention"};
    expect_refused(root, {"layer_types", "4 layers"});
    root["layer_types"] = {"full_attention", "full_attention", "full_attention", "chunked_attention"};
    expect_refused(root, {"layer_types[3]", "chunked_attention"});
    root.erase("layer_types");
    root["max_window_layers"] = -1;
    expect_refused(root, {"max_window_layers"});
}

class ConfigFile : public test::TemporaryFolder {};

TEST_F(ConfigFile, is_read_from_a_folder) {
    test::put(folder / "config.json", minimal().dump());
    EXPECT_EQ(read_config(folder).hidden_size, 64);
}

TEST_F(ConfigFile, must_be_there_and_be_json) {
    const std::string path = (folder / "config.json").string();
    expect_error([&] { read_config(folder); }, ExitCode::bad_input, {path, "cannot be read"});
    test::put(path, "\xef\xbb\xbf" + minimal().dump());
    expect_error([&] { read_config(folder); }, ExitCode::bad_input, {path, "byte order mark"});
    test::put(path, "{\"model_type\": ");
    expect_error([&] { read_config(folder); }, ExitCode::bad_input, {path, "JSON"});
    test::put(path, "{\"rms_norm_eps\": 1e999}");
    expect_error([&] { read_config(folder); }, ExitCode::bad_input, {path, "too large"});
    test::put(path, "[1, 2]");
    expect_error([&] { read_config(folder); }, ExitCode::bad_input, {path, "JSON"});
}

}  // namespace
}  // namespace amalgam
