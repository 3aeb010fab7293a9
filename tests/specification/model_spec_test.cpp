// SPDX-License-Identifier: Apache-2.0
#include "specification/model_spec.h"

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

TEST(ModelSpec, damaged_descriptions_name_the_file) {
    for (const char* text : {"", "{}", "[]", "{\"family\": 3}"})
        expect_error([&] { spec_from_json(text, "align.h5"); }, ExitCode::damaged_file, {"align.h5", "config"});
    ModelSpec spec{test::small_config(), all_softmax(3), {}};
    spec.layout.pop_back();
    expect_error([&] { spec_from_json(to_json(spec), "align.h5"); }, ExitCode::damaged_file, {"align.h5", "layout"});
}

}  // namespace
}  // namespace amalgam
