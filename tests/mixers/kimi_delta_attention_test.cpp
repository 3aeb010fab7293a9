// SPDX-License-Identifier: Apache-2.0
// The mixer kimi_delta_attention, and the operation under it.
#include "mixers/kimi_delta_attention/kimi_delta_attention.h"

#include <gtest/gtest.h>

#include <set>

#include "../operations/gradient_check.h"
#include "../storage/temporary_folder.h"
#include "mixer_gradients.h"
#include "mixers/kimi_delta_attention/kimi_delta_rule.h"
#include "model/transfer.h"

namespace amalgam {
namespace {

using test::Inputs;
using test::normal_numbers;
using test::relative_error;

constexpr const char* kimi_mixer = "kimi_delta_attention";

/// Token by token: S <- diag(exp(g)) S; r = beta (v - S^T k); S <- S + k r^T; o = S^T q.
at::Tensor recurrence(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& g,
                      const at::Tensor& beta, at::Tensor& state) {
    std::vector<at::Tensor> outputs;
    const auto read = [&](const at::Tensor& vector) { return at::matmul(vector.unsqueeze(-2), state).squeeze(-2); };
    for (int64_t t = 0; t < q.size(1); ++t) {
        state = state * g.select(1, t).exp().unsqueeze(-1);
        const at::Tensor key = k.select(1, t);
        const at::Tensor r = beta.select(1, t).unsqueeze(-1) * (v.select(1, t) - read(key));
        state = state + key.unsqueeze(-1) * r.unsqueeze(-2);
        outputs.push_back(read(q.select(1, t)));
    }
    return at::stack(outputs, 1);
}

/// q, k, v, g, beta from random numbers, fp64; every third channel forgets nothing.
Inputs rule_inputs(int64_t batch, int64_t time, int64_t heads, int64_t key_dim, int64_t value_dim, double decay = 0.1) {
    const auto numbers = [](at::IntArrayRef shape, uint64_t seed) {
        return normal_numbers(shape, seed).to(at::kDouble);
    };
    const auto unit = [](const at::Tensor& t) { return t / t.norm(2, -1, true); };
    const at::Tensor kept = at::arange(key_dim, test::on_device(at::kLong)).remainder(3).ne(0).to(at::kDouble);
    return {unit(numbers({batch, time, heads, key_dim}, 1)) / std::sqrt(double(key_dim)),
            unit(numbers({batch, time, heads, key_dim}, 2)), numbers({batch, time, heads, value_dim}, 3),
            -decay * numbers({batch, time, heads, key_dim}, 4).square() * kept,
            at::sigmoid(numbers({batch, time, heads}, 5))};
}

at::Tensor chunked(const Inputs& x) {
    at::Tensor none;
    return kimi_delta_rule_chunked(x[0], x[1], x[2], x[3], x[4], none);
}

at::Tensor token_by_token(const Inputs& x) {
    at::Tensor state = at::zeros({x[0].size(0), x[0].size(2), x[0].size(3), x[2].size(3)}, x[0].options());
    return recurrence(x[0], x[1], x[2], x[3], x[4], state);
}

TEST(KimiDeltaRuleChunked, is_the_recurrence) {
    for (const int64_t time : {1, 2, 63, 64, 65, 150}) {
        const Inputs in = rule_inputs(2, time, 3, 5, 7);
        EXPECT_LT(relative_error(chunked(in), token_by_token(in)), 1e-12) << time;
    }
}

TEST(KimiDeltaRuleChunked, continues_from_a_state) {
    const Inputs in = rule_inputs(2, 100, 3, 5, 7);
    const at::Tensor start = normal_numbers({2, 3, 5, 7}, 6).to(at::kDouble);
    at::Tensor found_state = start.clone(), state = start.clone();
    const at::Tensor found = kimi_delta_rule_chunked(in[0], in[1], in[2], in[3], in[4], found_state);
    EXPECT_LT(relative_error(found, recurrence(in[0], in[1], in[2], in[3], in[4], state)), 1e-12);
    EXPECT_LT(relative_error(found_state, state), 1e-6);  // states are kept in fp32
}

TEST(KimiDeltaRuleChunked, decays_of_any_strength_neither_overflow_nor_lose_the_present) {
    const Inputs in = rule_inputs(1, 130, 2, 6, 4, 60.0);
    const at::Tensor found = chunked(in);
    EXPECT_TRUE(found.isfinite().all().item<bool>());
    EXPECT_LT(relative_error(found, token_by_token(in)), 1e-10);
}

TEST(KimiDeltaRuleChunked, gradients_are_the_recurrences) {
    for (const double decay : {0.1, 20.0}) {
        const Inputs inputs = rule_inputs(1, 70, 2, 6, 4, decay);
        const auto found = test::differentiate(chunked, inputs, at::kDouble),
                   expected = test::differentiate(token_by_token, inputs, at::kDouble);
        for (size_t i = 0; i < inputs.size(); ++i)
            EXPECT_LT(relative_error(found.gradients[i], expected.gradients[i]), 1e-11) << "input " << i;
    }
}

/// qkv, a, b, a_log, dt_bias of the whole operation.
struct RuleCase {
    KimiDeltaShape shape;
    Inputs inputs;
    RuleCase(int64_t head_dim, bool activation, double lower_bound, int64_t time)
        : shape{3, head_dim, activation, lower_bound},
          inputs{normal_numbers({2, time, 3 * shape.width()}, 1), normal_numbers({2, time, shape.width()}, 2),
                 normal_numbers({2, time, 3}, 3), 0.5 * normal_numbers({3}, 4),
                 0.5 * normal_numbers({shape.width()}, 5) - 2.0} {}
    at::Tensor run(const Inputs& in) const {
        return kimi_delta_rule({in[0], in[1], in[2]}, in[3], in[4], shape, nullptr);
    }
};

TEST(KimiDeltaRule, kernels_and_operations_agree) {
    for (const auto& [head_dim, bound] : {std::pair{8, 0.0}, {7, -5.0}, {64, -5.0}, {64, 0.0}})
        for (const bool activation : {false, true}) {
            SCOPED_TRACE(testing::Message() << "heads of " << head_dim << " bound " << bound << " SiLU " << activation);
            const RuleCase c(head_dim, activation, bound, 90);
            test::expect_fp64_gradients([&](const Inputs& in) { return c.run(in); }, c.inputs, 2e-5);
        }
}

TEST(KimiDeltaRule, continues_from_a_state) {
    for (const double bound : {0.0, -5.0}) {
        const RuleCase c(8, true, bound, 90);
        const at::Tensor whole = c.run(c.inputs);
        for (const int64_t split : {1, 50, 64, 89}) {
            at::Tensor state = at::zeros({2, 3, 8, 8}, test::on_device(at::kFloat));
            const auto part = [&](int64_t first, int64_t count) {
                const auto of = [&](size_t i) { return c.inputs[i].narrow(1, first, count); };
                return kimi_delta_rule({of(0), of(1), of(2)}, c.inputs[3], c.inputs[4], c.shape, &state);
            };
            const at::Tensor first = part(0, split), second = part(split, 90 - split);
            EXPECT_LT(relative_error(at::cat({first, second}, 1), whole), 5e-6) << "split at " << split;
        }
    }
}

TEST(KimiDeltaAttention, options_have_their_parameters) {
    std::set<std::string> expected = {"q_proj.weight",   "k_proj.weight",   "v_proj.weight",   "b_proj.weight",
                                      "f_proj.0.weight", "f_proj.1.weight", "g_proj.0.weight", "g_proj.1.weight",
                                      "g_proj.1.bias",   "A_log",           "dt_bias",         "o_norm.weight",
                                      "o_proj.weight"};
    EXPECT_EQ(test::parameters_of(kimi_mixer, {}), expected);
    EXPECT_EQ(test::parameters_of(kimi_mixer, {{"lower_bound", -5.0}}), expected);
    expected.insert("conv1d.weight");
    EXPECT_EQ(test::parameters_of(kimi_mixer, {{"short_convolution", true}}), expected);
}

TEST(KimiDeltaAttention, is_the_same_in_any_type_and_on_any_device) {
    for (const bool convolution : {false, true})
        for (const double bound : {0.0, -5.0}) {
            const Options options = {{"short_convolution", convolution}, {"lower_bound", bound}};
            ModelConfig config = test::small_config("llama", 1);
            config.query_heads = config.key_value_heads = 3;  // rows of the projection: no multiple of what GPUs like
            config.head_dim = 64;
            const ModelSpec spec{config, {kimi_mixer}, options};
            // By LibTorch operations; the convolution has none in fp64.
            const auto expected = test::forward_and_backward(spec, at::kCPU, convolution ? at::kFloat : at::kDouble);
            const auto exact = test::forward_and_backward(spec, test::device(), at::kFloat),
                       narrow = test::forward_and_backward(spec, test::device(), at::kBFloat16);
            ASSERT_EQ(narrow.size(), expected.size());
            for (size_t i = 0; i < expected.size(); ++i) {
                EXPECT_GT(expected[i].abs().max().item<double>(), 1e-6) << "result " << i;
                EXPECT_LT(relative_error(exact[i], expected[i]), 2e-5) << convolution << bound << " result " << i;
                EXPECT_LT(relative_error(narrow[i], expected[i]), 3e-2) << convolution << bound << " result " << i;
            }
        }
}

/// A mixer of one layer in fp64, its output and the gradients of its parameters by name.
struct Differentiated {
    at::Tensor output;
    std::map<std::string, at::Tensor> weights, gradients;

    Differentiated(const ModelSpec& spec, const std::function<at::Tensor(const std::string&)>& weight) {
        ParameterStore store;
        const auto mixer = find_implementation(spec.layout[0]).make(spec, 0, store);
        store.allocate(test::device(), at::kDouble, true);
        store.for_each_named([&](const std::string& name, at::Tensor t, Parameter&) {
            weights[name] = weight(name);
            t.copy_(weights[name]);
        });
        store.refresh_compute();
        const at::Tensor x = normal_numbers({2, 150, spec.config.hidden_size}, 1).to(at::kDouble);
        const at::Tensor y = mixer->forward(x, {rotary_tables({}, spec.config.head_dim, 0, 150, test::device())});
        std::vector<at::Tensor> leaves;
        for (const Parameter& p : store.all()) leaves.push_back(p.compute);
        const auto found = torch::autograd::grad({y}, leaves, {normal_numbers(y.sizes(), 2).to(at::kDouble)});
        output = y.detach();
        size_t i = 0;
        for (const Parameter& p : store.all()) gradients[p.name.substr(layer_prefix(0).size() + 12)] = found[i++];
    }
};

class KimiDeltaTransfer : public testing::Test {
  protected:
    const ModelConfig config = test::small_config("llama", 1);
    std::unique_ptr<CausalLM> teacher = test::small_model({config, all_softmax(1), {}}, 1);
    const ModelSource source{*teacher, "teacher"};
    const std::string prefix = layer_prefix(0) + "linear_attn.";

    TransferSource transfer(const Options& options, const std::string& mixer = kimi_mixer) const {
        return {source, {config, {mixer}, options}, KeyValueExpansion::per_head, 5};
    }
};

/// The gated delta net without output gate that a layer starts as: output and gradients are the same.
TEST_F(KimiDeltaTransfer, starts_as_a_gated_delta_net) {
    const TransferSource start = transfer({});
    const Differentiated kimi({config, {kimi_mixer}, {}}, [&](const std::string& name) { return *start.find(name); });
    const auto of_gated_delta_net = [&](const std::string& name) {
        if (name == prefix + "a_proj.weight")
            return start.find(prefix + "f_proj.0.weight")->narrow(0, 0, config.query_heads);
        if (name == prefix + "dt_bias") return start.find(name)->view({config.query_heads, -1}).select(1, 0);
        if (name == prefix + "o_norm.weight") return at::ones({config.head_dim});
        return *start.find(name);
    };
    const Differentiated expected({config, {"gated_delta_net"}, {{"output_gate", false}}}, of_gated_delta_net);
    EXPECT_LT(relative_error(kimi.output, expected.output), 1e-12);

    const int64_t heads = config.query_heads, width = heads * config.head_dim;
    const at::Tensor in = kimi.gradients.at("in_proj.weight"), expected_in = expected.gradients.at("in_proj.weight");
    const auto expect_same = [&](const at::Tensor& found, const at::Tensor& wanted, const char* name) {
        EXPECT_LT(relative_error(found, wanted), 1e-6) << name;  // parameters of the gate are fp32
        EXPECT_GT(wanted.abs().max().item<double>(), 1e-9) << name;
    };
    expect_same(in.narrow(0, 0, 3 * width), expected_in.narrow(0, 0, 3 * width), "q, k, v");
    expect_same(in.narrow(0, 3 * width, heads), expected_in.narrow(0, 3 * width + heads, heads), "b");
    expect_same(in.narrow(0, 3 * width + heads, heads), expected_in.narrow(0, 3 * width, heads), "a");
    expect_same(kimi.gradients.at("A_log"), expected.gradients.at("A_log"), "A_log");
    expect_same(kimi.gradients.at("dt_bias").view({heads, -1}).sum(1), expected.gradients.at("dt_bias"), "dt_bias");
    expect_same(2 * kimi.gradients.at("o_norm.weight"), expected.gradients.at("o_norm.weight"), "o_norm");
    expect_same(kimi.gradients.at("o_proj.weight"), expected.gradients.at("o_proj.weight"), "o_proj");
    // From the first step on channels can part from each other, and gates open.
    for (const char* name : {"f_proj.1.weight", "g_proj.1.weight", "g_proj.1.bias"}) {
        const at::Tensor rows = kimi.gradients.at(name).view({width, -1});
        EXPECT_GT((rows - rows.mean(0, true)).abs().max().item<double>(), 1e-6) << name;
    }
}

TEST_F(KimiDeltaTransfer, decay_starts_as_a_gated_delta_net_of_the_same_seed) {
    const TransferSource start = transfer({}), other = transfer({}, "gated_delta_net");
    EXPECT_TRUE(at::equal(*start.find(prefix + "A_log"), *other.find(prefix + "A_log")));
    EXPECT_TRUE(at::equal(start.find(prefix + "dt_bias")->view({config.query_heads, -1}).select(1, 3),
                          *other.find(prefix + "dt_bias")));
    EXPECT_TRUE(at::equal(*start.find(prefix + "b_proj.weight"), *other.find(prefix + "b_proj.weight")));
}

/// A trained gated delta net goes on as Kimi Delta Attention.
TEST_F(KimiDeltaTransfer, continues_a_gated_delta_net) {
    for (const bool convolution : {false, true}) {
        const ModelSpec trained_spec{
            config, {"gated_delta_net"}, {{"output_gate", false}, {"short_convolution", convolution}}};
        const auto trained = test::small_model(trained_spec, 9);
        const ModelSource weights(*trained, "trained");
        const Options options = {{"short_convolution", true}};
        const TransferSource start = transfer(options);
        const ModelSpec spec{config, {kimi_mixer}, options};
        const auto student = test::small_model(spec, 1, /*trainable=*/true);
        const ContinuedSource continued(start, spec, weights, trained_spec);
        load_weights(*student, {&continued});
        const at::Tensor tokens = test::random_tokens(2, 40, config.vocabulary_size, 3);
        EXPECT_LT(relative_error(student->logits(tokens), trained->logits(tokens)), 1e-5);
        load_weights(*student, {&start, &source});  // a negative control
        EXPECT_GT(relative_error(student->logits(tokens), trained->logits(tokens)), 1e-2);
    }
}

TEST_F(KimiDeltaTransfer, refuses_to_continue_what_it_cannot_express) {
    const ModelSpec ours{config, {kimi_mixer}, {}};
    const TransferSource start = transfer({});
    const auto refused = [&](const ModelSpec& theirs, const char* part) {
        test::expect_error([&] { ContinuedSource(start, ours, source, theirs); }, ExitCode::bad_input, {part});
    };
    refused({config, {"gated_delta_net"}, {}}, "output gate");
    refused({config, {"gated_delta_net"}, {{"output_gate", false}, {"short_convolution", true}}}, "convolution");
    refused({config, {"gated_linear_attention"}, {}}, "gated_linear_attention");
    EXPECT_NO_THROW(ContinuedSource(start, ours, source, {config, {"gated_delta_net"}, {{"output_gate", false}}}));
}

/// Where raw gates are 0, a bounded gate decays as the softplus would with a rate and a step of the same kind.
TEST_F(KimiDeltaTransfer, bounded_gates_start_in_the_range_of_a_gated_delta_nets) {
    const TransferSource start = transfer({{"lower_bound", -5.0}});
    EXPECT_EQ(start.find(prefix + "A_log")->abs().max().item<double>(), 0.0);
    const at::Tensor decay = 5.0 * at::sigmoid(*start.find(prefix + "dt_bias"));
    EXPECT_GE(decay.min().item<double>(), 0.99e-4);
    EXPECT_LE(decay.max().item<double>(), 1.61);
    EXPECT_TRUE(at::equal(decay.view({config.query_heads, -1}).select(1, 0),
                          decay.view({config.query_heads, -1}).select(1, 7)));
}

}  // namespace
}  // namespace amalgam
