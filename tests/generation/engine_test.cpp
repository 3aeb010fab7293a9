// SPDX-License-Identifier: Apache-2.0
// The engine against whole passes without caches: prompts of unequal lengths, few slots, chunks, stops.
#include "generation/engine.h"

#include <ATen/core/grad_mode.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "../model/small_model.h"
#include "system/error.h"
#include "whole_passes.h"

namespace amalgam {
namespace {

/// Prompts of lengths from 1 on, some of them equal.
struct Prompts {
    std::vector<std::vector<int32_t>> tokens;
    std::vector<int64_t> counts;

    explicit Prompts(const std::vector<int64_t>& lengths, int64_t vocabulary = 61) {
        for (size_t i = 0; i < lengths.size(); ++i) {
            tokens.push_back(test::row_of(test::random_tokens(1, lengths[i], vocabulary, 10 + i), 0));
            counts.push_back(5 + int64_t(i) % 4);
        }
    }

    std::vector<Prompt> views(std::span<const int32_t> stops = {}) const {
        std::vector<Prompt> all;
        for (size_t i = 0; i < tokens.size(); ++i) all.push_back({tokens[i], counts[i], stops});
        return all;
    }
};

/// Some equal, some near enough to be padded to one length, some far from all others.
const std::vector<int64_t> lengths = {3, 66, 1, 17, 63, 130, 16, 2, 66};

/// Every kind of layer, and what the families differ in.
std::vector<ModelSpec> specs() {
    std::vector<ModelSpec> all;
    for (const char* family : {"llama", "qwen2", "qwen3"})
        all.push_back({test::small_config(family), all_softmax(3), {}});
    ModelConfig windows = test::small_config("qwen2");
    windows.window = {0, 5, 17};
    all.push_back({windows, all_softmax(3), {}});
    for (const char* rope : {"linear", "dynamic", "llama3", "yarn"}) {
        ModelConfig config = test::small_config();
        config.rope.rope_type = rope;
        config.rope.factor = 4.0;
        config.rope.original_max_position_embeddings = 40;
        all.push_back({config, keep_softmax(3, test::linear_mixer, {1}), {}});
    }
    for (const char* variant : {"gdn_v1", "gdn_v3", "gdn_v4", "gdn_v6", "gla_v1", "kda_v2", "kda_v3"}) {
        const FoundVariant found = *find_variant(variant);
        all.push_back({test::small_config("qwen3"), keep_softmax(3, found.mixer->name(), {1}), found.options});
    }
    all.push_back({test::small_config(), all_linear(3, test::linear_mixer), {{"rope", true}}});
    return all;
}

std::string name_of(const ModelSpec& spec) {
    return spec.config.family + " " + spec.config.rope.rope_type + " " + describe(spec.layout);
}

/// `dynamic` rotates cached keys by the length at their time, as transformers does: whole passes differ.
bool comparable(const ModelSpec& spec) {
    return spec.config.rope.rope_type != "dynamic";
}

TEST(Engine, gives_the_argmax_of_a_whole_pass_at_every_step) {
    const Prompts prompts(lengths);
    for (const ModelSpec& spec : specs()) {
        if (!comparable(spec)) continue;
        const auto model = test::small_model(spec, 3);
        const auto found = generate(*model, prompts.views());
        for (size_t i = 0; i < found.size(); ++i)
            EXPECT_EQ(found[i], test::by_whole_passes(*model, prompts.tokens[i], prompts.counts[i]))
                << name_of(spec) << ", prompt " << i;
    }
}

TEST(Engine, a_batch_gives_what_its_members_give_alone) {
    const Prompts prompts(lengths);
    const auto all = prompts.views();
    for (const ModelSpec& spec : specs()) {
        const auto model = test::small_model(spec, 3);
        const auto together = generate(*model, all);
        for (size_t i = 0; i < all.size(); ++i)
            EXPECT_EQ(generate(*model, std::span(all).subspan(i, 1)).front(), together[i]) << name_of(spec) << i;
    }
}

/// What padding left in a cache would change what comes after it.
TEST(Engine, padded_prompts_leave_what_they_leave_alone) {
    const std::vector<int64_t> counts = {70, 64, 1, 3};
    for (const ModelSpec& spec : specs()) {
        const auto model = test::small_model(spec, 3);
        for (const int64_t before : {0, 5}) {
            const at::Tensor tokens = test::random_tokens(4, before + 70 + 2, 61, 5);
            ModelCache together = model->make_cache({4, 80}), alone = model->make_cache({4, 80});
            const auto slots = at::arange(4, test::on_device(at::kLong));
            const auto chunk = [&](ModelCache& cache, const at::Tensor& rows, int64_t from, int64_t count,
                                   const at::Tensor& padded_to = {}) {
                return model->hidden(tokens.index_select(0, rows).narrow(1, from, count), cache,
                                     CacheChunk{rows, from, padded_to}, before + 70);
            };
            if (before > 0) {
                chunk(together, slots, 0, before);
                chunk(alone, slots, 0, before);
            }
            chunk(together, slots, before, 70, at::tensor(counts, at::kLong).to(slots.device()));
            std::vector<int32_t> seen;
            for (int64_t row = 0; row < 4; ++row) {
                chunk(alone, slots.narrow(0, row, 1), before, counts[size_t(row)]);
                seen.push_back(int32_t(before + counts[size_t(row)]));
            }
            const CacheStep step{slots.to(at::kInt), at::tensor(seen, at::kInt).to(slots.device())};
            const at::Tensor next = tokens.select(1, before + 70);
            const at::Tensor expected = model->hidden(next, alone, step), found = model->hidden(next, together, step);
            EXPECT_LT(test::relative_error(found, expected), 1e-5) << name_of(spec) << ", after " << before;
        }
    }
}

/// Sequences wait for a slot and take over what another has left; prompts are cut into chunks.
TEST(Engine, neither_few_slots_nor_small_chunks_change_an_answer) {
    const Prompts prompts(lengths);
    for (const ModelSpec& spec : specs()) {
        const auto model = test::small_model(spec, 3);
        const auto expected = generate(*model, prompts.views());
        for (const auto& [slots, chunk] : {std::pair<int64_t, int64_t>{3, 8192}, {2, 7}, {1, 64}}) {
            EngineLimits limits;
            limits.slots = slots;
            limits.chunk_tokens = chunk;
            EXPECT_EQ(generate(*model, prompts.views(), limits), expected)
                << name_of(spec) << ": " << slots << " slots, chunks of " << chunk;
        }
    }
}

TEST(Engine, an_engine_answers_again_and_again) {
    const auto model = test::small_model(specs().back(), 3);
    const Prompts first({9, 4}), second({12, 3, 3});
    GenerationEngine engine(*model, 40);
    for (const Prompts* prompts : {&first, &second, &first}) {
        std::vector<std::vector<int32_t>> found(prompts->tokens.size());
        engine.generate(prompts->views(), [&](size_t i, std::vector<int32_t> tokens) { found[i] = std::move(tokens); });
        EXPECT_EQ(found, generate(*model, prompts->views()));
    }
}

TEST(Engine, ends_after_the_first_stop_token) {
    const auto model = test::small_model(specs().front(), 3);
    const Prompts prompts(lengths);
    const auto free = generate(*model, prompts.views());
    std::vector<int32_t> stops = {free[0][1], free[1][0], free[5].back()};
    std::ranges::sort(stops);
    const auto found = generate(*model, prompts.views(stops));
    size_t shortened = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        std::vector<int32_t> expected;
        for (const int32_t token : free[i]) {
            expected.push_back(token);
            if (std::ranges::binary_search(stops, token)) break;
        }
        EXPECT_EQ(found[i], expected) << i;
        shortened += expected.size() < free[i].size();
    }
    EXPECT_GT(shortened, 1U);
    EXPECT_LT(shortened, found.size());
}

TEST(Engine, no_new_tokens_are_no_work) {
    const auto model = test::small_model(specs().front(), 3);
    Prompts prompts({4, 5});
    prompts.counts = {0, 3};
    const auto found = generate(*model, prompts.views());
    EXPECT_TRUE(found[0].empty());
    EXPECT_EQ(found[1].size(), 3U);
    EXPECT_TRUE(generate(*model, {}).empty());
}

/// Of the logit that a whole pass gives the chosen token to the largest one, at every step: in bfloat16 the two forms
/// round differently, and tokens that are nearly equally likely may change places.
double largest_loss(const CausalLM& model, const Prompts& prompts, const std::vector<std::vector<int32_t>>& answers) {
    const at::NoGradGuard no_grad;
    double largest = 0.0;
    for (size_t i = 0; i < answers.size(); ++i) {
        std::vector<int64_t> tokens(prompts.tokens[i].begin(), prompts.tokens[i].end());
        tokens.insert(tokens.end(), answers[i].begin(), answers[i].end());
        const at::Tensor all = model.logits(at::tensor(tokens, at::kLong).unsqueeze(0).to(model.device()));
        const at::Tensor logits = all.squeeze(0).to(at::kCPU, at::kDouble);
        for (size_t t = prompts.tokens[i].size(); t < tokens.size(); ++t) {
            const at::Tensor row = logits[int64_t(t) - 1];
            largest = std::max(largest, (row.max() - row[tokens[t]]).item<double>());
        }
    }
    return largest;
}

/// Heads that GPUs have kernels for: there, steps are recorded as graphs, of more rows than there are sequences.
TEST(Engine, bfloat16_answers_are_the_likeliest_up_to_rounding) {
    const Prompts prompts({3, 66, 1, 17, 66, 130, 17, 2, 40, 41, 42, 43, 80});
    for (const int64_t head_dim : {64, 128})
        for (const char* variant : {"gdn_v3", "gdn_v4", "gla_v1", "kda_v1"}) {
            ModelConfig config = test::small_config("qwen3");
            config.head_dim = head_dim;
            const FoundVariant found = *find_variant(variant);
            const auto model = test::small_model({config, keep_softmax(3, found.mixer->name(), {1}), found.options}, 3,
                                                 false, at::kBFloat16);
            for (const int64_t slots : {5, 16}) {
                EngineLimits limits;
                limits.slots = slots;
                auto answers = generate(*model, prompts.views(), limits);
                EXPECT_LT(largest_loss(*model, prompts, answers), 0.15) << variant << " " << head_dim;
                std::swap(answers[1], answers[4]);  // a negative control: both prompts have 66 tokens
                EXPECT_GT(largest_loss(*model, prompts, answers), 0.15) << variant << " " << head_dim;
            }
        }
}

TEST(Engine, memory_limits_the_slots) {
    const auto model = test::small_model(specs().front(), 3);
    EngineLimits limits;
    limits.memory_bytes = 5 * model->cache_bytes(40) + 1;
    EXPECT_EQ(GenerationEngine(*model, 40, limits).slots(), 5);
    limits.memory_bytes = model->cache_bytes(40) - 1;
    EXPECT_THROW(GenerationEngine(*model, 40, limits), Error);
}

}  // namespace
}  // namespace amalgam
