// SPDX-License-Identifier: Apache-2.0
#include "model/transfer.h"

#include <gtest/gtest.h>

#include "../storage/temporary_folder.h"
#include "small_model.h"

namespace amalgam {
namespace {

using test::expect_error;

constexpr const char* softmax = "model.layers.1.self_attn.";
constexpr const char* linear = "model.layers.1.linear_attn.";

class Transfer : public testing::Test {
  protected:
    const ModelConfig config = test::small_config();
    std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(config.layers), {}}, 1);
    const ModelSource source{*teacher, "teacher"};

    TransferSource transfer(KeyValueExpansion expansion = KeyValueExpansion::per_head, uint64_t seed = 5,
                            const Options& options = {{"short_convolution", true}},
                            const std::string& mixer = test::linear_mixer) const {
        return {source, {config, all_linear(config.layers, mixer), options}, expansion, seed};
    }
    /// Of a layer of gated linear attention if the name is one that only it has.
    at::Tensor from(const std::string& name, KeyValueExpansion expansion = KeyValueExpansion::per_head,
                    uint64_t seed = 5, const std::string& layer = linear) const {
        const bool decay = name.starts_with("gk_proj");
        const auto found = decay ? transfer(expansion, seed, {}, "gated_linear_attention").find(layer + name)
                                 : transfer(expansion, seed).find(layer + name);
        if (!found) throw std::runtime_error(name + " is not there");
        return *found;
    }
};

TEST_F(Transfer, copies_query_and_output_and_all_that_is_not_attention) {
    for (const char* name : {"q_proj.weight", "o_proj.weight"})
        EXPECT_TRUE(at::equal(from(name), *source.find(std::string(softmax) + name))) << name;
    for (const char* name : {"model.embed_tokens.weight", "model.layers.2.mlp.up_proj.weight", "model.norm.weight"})
        EXPECT_TRUE(at::equal(*transfer().find(name), *source.find(name))) << name;
    EXPECT_FALSE(transfer().find("model.layers.9.linear_attn.q_proj.weight").has_value());
}

TEST_F(Transfer, per_head_gives_every_query_head_its_groups_head) {
    for (const char* name : {"k_proj.weight", "v_proj.weight"}) {
        const at::Tensor grouped = source.find(std::string(softmax) + name)->unflatten(0, {2, 8});
        const at::Tensor heads = from(name).unflatten(0, {4, 8});
        for (int64_t head = 0; head < 4; ++head)
            EXPECT_TRUE(at::equal(heads[head], grouped[head / 2])) << name << " head " << head;
    }
}

TEST_F(Transfer, per_row_repeats_rows_and_mixes_channels) {
    const at::Tensor rows = *source.find(std::string(softmax) + "k_proj.weight");
    const at::Tensor expanded = from("k_proj.weight", KeyValueExpansion::per_row);
    ASSERT_EQ(expanded.size(0), 32);
    for (int64_t row = 0; row < 32; ++row) EXPECT_TRUE(at::equal(expanded[row], rows[row / 2])) << "row " << row;
    // Channel 1 of head 0 is the teacher's channel 0: not what the query was trained to meet.
    EXPECT_TRUE(at::equal(expanded[1], rows[0]));
    EXPECT_FALSE(at::equal(expanded, from("k_proj.weight")));
}

TEST_F(Transfer, expansions_agree_where_every_query_head_has_its_own_key) {
    const at::Tensor weight = test::normal_numbers({32, 24}, 3);
    for (const auto expansion : {KeyValueExpansion::per_head, KeyValueExpansion::per_row})
        EXPECT_TRUE(at::equal(expand_key_value(weight, 4, 4, expansion), weight));
}

/// Attention scores of the student are the teacher's only if keys are expanded by heads.
TEST_F(Transfer, per_head_keeps_the_products_of_queries_and_keys) {
    const at::Tensor x = test::normal_numbers({7, 24}, 4);
    auto heads = [&](const at::Tensor& weight) {
        return at::linear(x, weight.to(x.device())).unflatten(1, {-1, 8}).transpose(0, 1);
    };
    const at::Tensor q = heads(*source.find(std::string(softmax) + "q_proj.weight"));
    const at::Tensor k = heads(*source.find(std::string(softmax) + "k_proj.weight")).repeat_interleave(2, 0);
    const at::Tensor expected = at::matmul(q, k.transpose(1, 2));
    const auto scores = [&](KeyValueExpansion e) {
        return at::matmul(heads(from("q_proj.weight")), heads(from("k_proj.weight", e)).transpose(1, 2));
    };
    EXPECT_LT(test::relative_error(scores(KeyValueExpansion::per_head), expected), 1e-6);
    EXPECT_GT(test::relative_error(scores(KeyValueExpansion::per_row), expected), 0.5);
}

TEST_F(Transfer, initial_values_depend_on_seed_and_name_only) {
    for (const char* name : {"g_proj.weight", "a_proj.weight", "b_proj.weight", "A_log", "dt_bias", "gk_proj.0.weight",
                             "gk_proj.1.weight", "gk_proj.1.bias"}) {
        EXPECT_TRUE(at::equal(from(name), from(name))) << name;
        EXPECT_FALSE(at::equal(from(name), from(name, KeyValueExpansion::per_head, 6))) << name << " of another seed";
        const at::Tensor elsewhere = from(name, KeyValueExpansion::per_head, 5, "model.layers.2.linear_attn.");
        EXPECT_FALSE(at::equal(from(name), elsewhere)) << name << " of another layer";
    }
    EXPECT_FALSE(at::equal(from("a_proj.weight"), from("b_proj.weight")));
}

TEST_F(Transfer, initial_values_are_in_their_ranges) {
    const double bound = 1.0 / std::sqrt(24.0);
    const at::Tensor gate = from("g_proj.weight");
    EXPECT_EQ(gate.sizes(), (std::vector<int64_t>{32, 24}));
    EXPECT_LT(gate.abs().max().item<double>(), bound);
    EXPECT_NEAR(gate.mean().item<double>(), 0.0, 0.05 * bound);
    EXPECT_NEAR(gate.std().item<double>(), bound / std::sqrt(3.0), 0.05 * bound);
    for (const char* name : {"gk_proj.1.weight", "gk_proj.1.bias"}) {  // its inputs are 16
        EXPECT_LT(from(name).abs().max().item<double>(), 0.25) << name;
        EXPECT_GT(from(name).abs().max().item<double>(), 0.2) << name;
    }
    EXPECT_LT(from("A_log").max().item<double>(), std::log(16.0));
    const at::Tensor step = at::softplus(from("dt_bias"));
    EXPECT_GE(step.min().item<double>(), 0.999e-3);
    EXPECT_LE(step.max().item<double>(), 0.1001);
    EXPECT_TRUE(at::equal(from("o_norm.weight"), at::ones({8})));
}

TEST_F(Transfer, convolution_starts_as_the_identity) {
    const at::Tensor taps = from("conv1d.weight");
    ASSERT_EQ(taps.sizes(), (std::vector<int64_t>{96, 4}));
    EXPECT_EQ(taps.narrow(1, 0, 3).abs().max().item<double>(), 0.0);
    EXPECT_TRUE(at::equal(taps.select(1, 3), at::ones({96})));
}

TEST_F(Transfer, fills_every_variant_of_a_student) {
    for (const bool convolution : {false, true})
        for (const bool gate : {false, true}) {
            const Options options = {{"short_convolution", convolution}, {"output_gate", gate}};
            const TransferSource all = transfer(KeyValueExpansion::per_head, 5, options);
            CausalLM student({config, all_linear(config.layers, test::linear_mixer), options}, test::device(),
                             at::kFloat, true);
            EXPECT_NO_THROW(load_weights(student, {&all}));
        }
}

TEST_F(Transfer, kept_softmax_layers_have_the_teachers_tensors) {
    const TransferSource hybrid(source, {config, keep_softmax(config.layers, test::linear_mixer, {1}), {}},
                                KeyValueExpansion::per_head, 5);
    for (const char* name : {"q_proj.weight", "k_proj.weight", "o_proj.weight"})
        EXPECT_TRUE(at::equal(*hybrid.find(std::string(softmax) + name), *source.find(std::string(softmax) + name)));
    EXPECT_FALSE(hybrid.find(std::string(linear) + "q_proj.weight")) << "layer 1 has no linear mixer";
}

TEST_F(Transfer, names_that_no_mixer_declares_are_not_there) {
    EXPECT_FALSE(transfer().find(std::string(linear) + "z_proj.weight"));
    EXPECT_FALSE(transfer().find(std::string(linear) + "gk_proj.0.weight")) << "of another mixer";
}

}  // namespace
}  // namespace amalgam
