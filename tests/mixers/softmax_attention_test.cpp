// SPDX-License-Identifier: Apache-2.0
// The attention of every family against the formula with an explicit mask, in fp64.
#include "mixers/softmax_attention/softmax_attention.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"
#include "mixers/implementation.h"

namespace amalgam {
namespace {

/// One attention layer with random weights.
struct Layer {
    ModelConfig config;
    ParameterStore store;
    std::unique_ptr<Mixer> mixer;
    std::map<std::string, at::Tensor> weights;  // fp64, by the last parts of their names

    Layer(const std::string& family, int64_t window, bool output_bias = false) : config(test::small_config(family, 1)) {
        config.window = {window};
        config.output_bias = output_bias;
        mixer = find_implementation(softmax_mixer).make({config, all_softmax(1), {}}, 0, store);
        store.allocate(test::device(), at::kFloat, false);
        test::fill_randomly(store, 3);
        const std::string prefix = layer_prefix(0) + "self_attn.";
        store.for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
            weights[name.substr(prefix.size())] = t.to(at::kDouble);
        });
    }

    at::Tensor found(const at::Tensor& x) const {
        return mixer->forward(x, {rotary_tables(config.rope, config.head_dim, 0, x.size(1), test::device())});
    }

    at::Tensor project(const at::Tensor& x, const std::string& name) const {
        const auto bias = weights.find(name + ".bias");
        return at::linear(x, weights.at(name + ".weight"), bias == weights.end() ? at::Tensor() : bias->second);
    }

    /// [batch, heads, time, dim], normed and rotated.
    at::Tensor heads(const at::Tensor& x, const std::string& name, int64_t count) const {
        at::Tensor t = project(x, name + "_proj").unflatten(-1, {count, config.head_dim});
        if (name == "v") return t.transpose(1, 2);
        if (const auto norm = weights.find(name + "_norm.weight"); norm != weights.end())
            t = t / at::sqrt(t.square().mean(-1, true) + config.rms_norm_eps) * norm->second;
        const int64_t half = config.head_dim / 2;
        const at::Tensor frequency =
            at::pow(config.rope.rope_theta, at::arange(half, test::on_device(at::kDouble)) / -double(half));
        const at::Tensor angle =
            (at::arange(x.size(1), test::on_device(at::kDouble)).unsqueeze(1) * frequency).unsqueeze(1);
        const at::Tensor re = t.narrow(-1, 0, half), im = t.narrow(-1, half, half);
        return at::cat({re * angle.cos() - im * angle.sin(), re * angle.sin() + im * angle.cos()}, -1).transpose(1, 2);
    }

    at::Tensor expected(const at::Tensor& input) const {
        const at::Tensor x = input.to(at::kDouble);
        const int64_t group = config.query_heads / config.key_value_heads, time = x.size(1), window = config.window[0];
        const at::Tensor q = heads(x, "q", config.query_heads);
        const at::Tensor k = heads(x, "k", config.key_value_heads).repeat_interleave(group, 1),
                         v = heads(x, "v", config.key_value_heads).repeat_interleave(group, 1);
        at::Tensor scores = at::matmul(q, k.transpose(-1, -2)) / std::sqrt(double(config.head_dim));
        for (int64_t i = 0; i < time; ++i)
            for (int64_t j = 0; j < time; ++j)
                if (j > i || (window > 0 && i - j >= window)) scores.select(2, i).select(2, j).fill_(-INFINITY);
        return project(at::matmul(at::softmax(scores, -1), v).transpose(1, 2).flatten(-2), "o_proj");
    }

    void expect_formula(int64_t time) const {
        const at::Tensor x = test::normal_numbers({2, time, config.hidden_size}, 1);
        EXPECT_LT(test::relative_error(found(x), expected(x)), 2e-6) << config.family << ", " << time << " tokens";
    }
};

TEST(SoftmaxAttention, is_the_formula_of_every_family) {
    Layer("llama", 0).expect_formula(13);
    Layer("llama", 0, true).expect_formula(13);
    Layer("qwen2", 0).expect_formula(13);
    Layer("qwen3", 0).expect_formula(13);
}

TEST(SoftmaxAttention, a_window_hides_what_is_older) {
    for (const int64_t window : {1, 2, 5, 12, 13, 100}) {
        Layer("qwen2", window).expect_formula(13);
        Layer("qwen3", window).expect_formula(13);
    }
}

TEST(SoftmaxAttention, a_window_matters) {
    const Layer open("qwen2", 0), narrow("qwen2", 5);
    const at::Tensor x = test::normal_numbers({1, 13, 24}, 1);
    const at::Tensor a = open.found(x), b = narrow.found(x);
    EXPECT_LT(test::relative_error(a.narrow(1, 0, 5), b.narrow(1, 0, 5)), 1e-6) << "nothing is older yet";
    EXPECT_GT(test::relative_error(a.narrow(1, 5, 8), b.narrow(1, 5, 8)), 0.05);
}

/// Queries are taken in blocks, whose masks leave out keys that none of them sees.
TEST(SoftmaxAttention, of_the_last_of_many_keys_is_the_formula) {
    constexpr int64_t keys = 2600, queries = 2100;
    const auto numbers = [](int64_t heads, int64_t time, uint64_t seed) {
        return test::normal_numbers({1, heads, time, 8}, seed);
    };
    const at::Tensor q = numbers(2, queries, 1), k = numbers(1, keys, 2), v = numbers(1, keys, 3);
    const auto position = at::arange(keys, test::on_device(at::kLong));
    const auto own = position.narrow(0, keys - queries, queries).unsqueeze(1);
    for (const int64_t window : {0, 1500, 40}) {
        at::Tensor hidden = position.unsqueeze(0).gt(own);
        if (window > 0) hidden = hidden.logical_or(position.unsqueeze(0).le(own - window));
        const at::Tensor scores = at::matmul(q.to(at::kDouble), k.to(at::kDouble).transpose(-1, -2)) / std::sqrt(8.0);
        const at::Tensor expected =
            at::matmul(at::softmax(scores.masked_fill(hidden, -INFINITY), -1), v.to(at::kDouble));
        EXPECT_LT(test::relative_error(attend_to_last(q, k, v, window), expected), 2e-6) << "window " << window;
    }
}

}  // namespace
}  // namespace amalgam
