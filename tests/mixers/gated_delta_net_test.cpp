// SPDX-License-Identifier: Apache-2.0
// Which parameters the variants of the gated delta net have, and that every one of them takes part.
#include "mixers/gated_delta_net/gated_delta_net.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <set>

#include "../storage/temporary_folder.h"
#include "mixer_gradients.h"

namespace amalgam {
namespace {

constexpr const char* gated_delta_net_mixer = "gated_delta_net";

TEST(GatedDeltaNet, variants_have_their_parameters) {
    std::set<std::string> bare = {"q_proj.weight", "k_proj.weight", "v_proj.weight", "a_proj.weight",
                                  "b_proj.weight", "A_log",         "dt_bias",       "o_proj.weight"};
    Options options = {{"output_gate", false}, {"output_norm", false}};
    EXPECT_EQ(test::parameters_of(gated_delta_net_mixer, options), bare);
    options["output_norm"] = true;
    bare.insert("o_norm.weight");
    EXPECT_EQ(test::parameters_of(gated_delta_net_mixer, options), bare);
    options["output_gate"] = true;
    bare.insert("g_proj.weight");
    EXPECT_EQ(test::parameters_of(gated_delta_net_mixer, options), bare);
    options["short_convolution"] = true;
    bare.insert("conv1d.weight");
    EXPECT_EQ(test::parameters_of(gated_delta_net_mixer, options), bare);
}

TEST(GatedDeltaNet, every_parameter_gets_a_gradient) {
    for (const bool rope : {false, true}) {
        const Options options = {{"short_convolution", true}, {"rope", rope}};
        const ModelConfig config = test::small_config("llama", 1);
        ParameterStore store;
        const auto mixer =
            find_implementation(gated_delta_net_mixer).make({config, {gated_delta_net_mixer}, options}, 0, store);
        store.allocate(test::device(), at::kFloat, true);
        test::fill_randomly(store, 1);
        const at::Tensor x = test::normal_numbers({2, 20, config.hidden_size}, 1);
        const at::Tensor y = mixer->forward(x, {rotary_tables({}, config.head_dim, 0, 20, test::device())});
        std::vector<at::Tensor> leaves;
        for (const Parameter& p : store.all()) leaves.push_back(p.compute);
        const auto gradients = torch::autograd::grad({y.square().sum()}, leaves);
        for (size_t i = 0; i < leaves.size(); ++i)
            EXPECT_GT(gradients[i].abs().max().item<double>(), 1e-6) << store.all()[i].name;
    }
}

TEST(GatedDeltaNet, is_the_same_in_any_type_and_on_any_device) {
    for (const bool convolution : {false, true})
        for (const bool rope : {false, true}) {
            const Options options = {{"short_convolution", convolution}, {"rope", rope}};
            ModelConfig config = test::small_config("llama", 1);
            config.query_heads = config.key_value_heads = 3;  // rows of the projection: no multiple of what GPUs like
            config.head_dim = 64;
            const ModelSpec spec{config, {gated_delta_net_mixer}, options};
            const auto expected = test::forward_and_backward(spec, at::kCPU, at::kFloat);
            const auto exact = test::forward_and_backward(spec, test::device(), at::kFloat),
                       narrow = test::forward_and_backward(spec, test::device(), at::kBFloat16);
            ASSERT_EQ(narrow.size(), expected.size());
            for (size_t i = 0; i < expected.size(); ++i) {
                EXPECT_LT(test::relative_error(exact[i], expected[i]), 2e-5) << convolution << rope << " result " << i;
                EXPECT_LT(test::relative_error(narrow[i], expected[i]), 3e-2) << convolution << rope << " result " << i;
            }
        }
}

TEST(Mixer, unknown_names_are_refused) {
    test::expect_error([] { find_implementation("mamba"); }, ExitCode::bad_input,
                       {"mamba", "softmax, gated_delta_net, gated_linear_attention"});
}

}  // namespace
}  // namespace amalgam
