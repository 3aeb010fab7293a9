// SPDX-License-Identifier: Apache-2.0
#include "specification/model_spec.h"

#include <nlohmann/json.hpp>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;

TEST(ModelSpec, survives_json) {
    ModelSpec spec{test::small_config("qwen2"), {test::linear_mixer, "softmax", test::linear_mixer}, {}};
    spec.config.window = {0, 5, 0};
    spec.config.rope = {"yarn", 5e5, 4.0, 1.5, 3.5, 99, 31.0, 2.0, 0.7, 0.8, 0.9, false};
    spec.config.bos = {1};
    spec.config.eos = {2, 3};
    spec.options = {
        {"short_convolution", true}, {"rank", int64_t{16}}, {"scale", 0.5}, {"gate", std::string("bounded")}};
    spec.output_norm_eps = 1e-4;
    const std::string text = to_json(spec);
    EXPECT_EQ(to_json(spec_from_json(text, "file")), text);
    const ModelSpec back = spec_from_json(text, "file");
    EXPECT_EQ(back.layout, spec.layout);
    EXPECT_EQ(back.config.window, spec.config.window);
    EXPECT_FALSE(back.config.rope.truncate);
    EXPECT_EQ(back.options, spec.options);
    EXPECT_EQ(back.output_norm_eps, 1e-4);
}

// What checkpoints of the first releases hold: the names must stay, or those files can no longer be read.
constexpr const char* stored_spec = R"({
  "bos": [1], "eos": [2, 3], "family": "qwen2", "head_dim": 8, "hidden_size": 24, "intermediate_size": 40,
  "key_value_heads": 2, "layers": 3,
  "layout": ["gated_delta_net", "softmax", "gated_delta_net"],
  "linear": {"activation": true, "convolution_width": 3, "norm_eps": 0.0001, "output_gate": false,
             "output_norm": false, "rope": true, "short_convolution": true},
  "max_positions": 256, "mlp_bias": false, "output_bias": false, "qk_norm": false, "qkv_bias": true, "query_heads": 4,
  "rms_norm_eps": 1e-05,
  "rope": {"attention_factor": 0.7, "beta_fast": 31.0, "beta_slow": 2.0, "factor": 4.0, "high_freq_factor": 3.5,
           "low_freq_factor": 1.5, "mscale": 0.8, "mscale_all_dim": 0.9, "original_max_position_embeddings": 99,
           "rope_theta": 500000.0, "rope_type": "yarn", "truncate": false},
  "tied_head": true, "vocabulary_size": 61, "window": [0, 5, 0]
})";

TEST(ModelSpec, is_read_from_checkpoints_of_the_first_releases) {
    const ModelSpec spec = spec_from_json(stored_spec, "align.h5");
    const ModelConfig& c = spec.config;
    EXPECT_EQ(c.family, "qwen2");
    EXPECT_EQ((std::vector<int64_t>{c.hidden_size, c.layers, c.query_heads, c.key_value_heads, c.head_dim,
                                    c.intermediate_size, c.vocabulary_size, c.max_positions}),
              (std::vector<int64_t>{24, 3, 4, 2, 8, 40, 61, 256}));
    EXPECT_EQ(c.rms_norm_eps, 1e-5);
    EXPECT_TRUE(c.tied_head && c.qkv_bias);
    EXPECT_FALSE(c.output_bias || c.mlp_bias || c.qk_norm);
    EXPECT_EQ(c.window, (std::vector<int64_t>{0, 5, 0}));
    EXPECT_EQ(c.bos, (std::vector<int64_t>{1}));
    EXPECT_EQ(c.eos, (std::vector<int64_t>{2, 3}));
    EXPECT_EQ(c.rope.rope_type, "yarn");
    EXPECT_EQ((std::vector<double>{c.rope.rope_theta, c.rope.factor, c.rope.low_freq_factor, c.rope.high_freq_factor,
                                   c.rope.beta_fast, c.rope.beta_slow, c.rope.attention_factor, c.rope.mscale,
                                   c.rope.mscale_all_dim}),
              (std::vector<double>{5e5, 4.0, 1.5, 3.5, 31.0, 2.0, 0.7, 0.8, 0.9}));
    EXPECT_EQ(c.rope.original_max_position_embeddings, 99);
    EXPECT_FALSE(c.rope.truncate);
    EXPECT_EQ(spec.layout, (Layout{"gated_delta_net", "softmax", "gated_delta_net"}));
}

TEST(ModelSpec, is_written_with_the_names_of_the_first_releases) {
    auto stored = nlohmann::json::parse(stored_spec),
         written = nlohmann::json::parse(to_json(spec_from_json(stored_spec, "align.h5")));
    stored.erase("linear");  // options of mixers are the mixers' own
    written.erase("linear");
    EXPECT_EQ(written, stored);
}

TEST(ModelSpec, a_description_without_one_of_its_keys_is_damaged) {
    const auto whole = nlohmann::json::parse(stored_spec);
    for (const auto& [key, value] : whole.items()) {
        auto part = whole;
        part.erase(key);
        expect_error([&] { spec_from_json(part.dump(), "align.h5"); }, ExitCode::damaged_file, {"align.h5", key});
    }
}

TEST(ModelSpec, damaged_descriptions_name_the_file) {
    for (const char* text : {"", "{}", "[]", "{\"family\": 3}"})
        expect_error([&] { spec_from_json(text, "align.h5"); }, ExitCode::damaged_file, {"align.h5", "config"});
    ModelSpec spec{test::small_config(), all_softmax(3), {}};
    spec.layout.pop_back();
    expect_error([&] { spec_from_json(to_json(spec), "align.h5"); }, ExitCode::damaged_file, {"align.h5", "layout"});
}

}  // namespace
}  // namespace amalgam
