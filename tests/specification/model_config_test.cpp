// SPDX-License-Identifier: Apache-2.0
#include "specification/model_config.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"

namespace amalgam {
namespace {

TEST(ModelConfig, counted_parameters_are_those_of_the_model) {
    for (const char* family : {"llama", "qwen2", "qwen3"}) {
        ModelConfig c = test::small_config(family);
        c.mlp_bias = c.output_bias = c.family == "llama";
        CausalLM model({c, all_softmax(3), {}}, at::kCPU, at::kFloat, false);
        EXPECT_EQ(count_parameters(c), model.parameters().elements()) << family;
    }
}

}  // namespace
}  // namespace amalgam
