// SPDX-License-Identifier: Apache-2.0
// Whole models: a sequence in one pass, token by token, or in two parts gives the same logits, for every mixer.
#include "model/causal_lm.h"

#include <gtest/gtest.h>

#include "small_model.h"

namespace amalgam {
namespace {

constexpr int64_t time_ = 70;  // more than one chunk of the gated delta rule

/// Options of the paper's variants, and rotary embedding in the linear layers.
std::map<std::string, Options> variants() {
    std::map<std::string, Options> all;
    for (const char* name : {"gdn_v1", "gdn_v2", "gdn_v3", "gdn_v4", "gdn_v6"}) all[name] = find_variant(name)->options;
    all["gdn_v4 with rope"] = {{"rope", true}};
    all["gdn_v3 with rope"] = {{"short_convolution", true}, {"rope", true}};
    return all;
}

/// Logits of the parts [0, cut), [cut, next cut), ... with a cache: single tokens by steps, more of them by chunks. The
/// sequences lie in slots in another order than in the batch.
at::Tensor in_parts(const CausalLM& model, const at::Tensor& tokens, std::vector<int64_t> cuts) {
    cuts.push_back(tokens.size(1));
    const int64_t batch = tokens.size(0);
    ModelCache cache = model.make_cache({batch + 2, tokens.size(1)});
    const at::Tensor slots = at::arange(batch, 0, -1, tokens.options());
    std::vector<at::Tensor> parts;
    int64_t first = 0;
    for (const int64_t cut : cuts) {
        const at::Tensor part = tokens.narrow(1, first, cut - first);
        if (cut - first == 1 && first > 0) {
            const CacheStep step{slots.to(at::kInt), at::full({batch}, first, slots.options().dtype(at::kInt))};
            parts.push_back(model.hidden(part.squeeze(1), cache, step).unsqueeze(1));
        } else {
            parts.push_back(model.hidden(part, cache, CacheChunk{slots, first}));
        }
        first = cut;
    }
    return at::linear(at::cat(parts, 1), model.head_parameter().compute);
}

void expect_same_in_parts(const ModelSpec& spec, const std::string& what) {
    const auto model = test::small_model(spec, 7);
    const at::Tensor tokens = test::random_tokens(2, time_, spec.config.vocabulary_size, 2);
    const at::Tensor whole = model->logits(tokens);
    std::vector<int64_t> every;
    for (int64_t t = 1; t < time_; ++t) every.push_back(t);
    EXPECT_LT(test::relative_error(in_parts(*model, tokens, every), whole), 1e-5) << what << ", token by token";
    for (const int64_t cut : {1, 2, 3, 31, 63, 64, 65, 69})
        EXPECT_LT(test::relative_error(in_parts(*model, tokens, {cut}), whole), 1e-5) << what << ", cut at " << cut;
}

TEST(CausalLM, softmax_models_continue) {
    for (const char* family : {"llama", "qwen2", "qwen3"})
        expect_same_in_parts({test::small_config(family), all_softmax(3), {}}, family);
}

TEST(CausalLM, models_with_windows_continue) {
    ModelConfig config = test::small_config("qwen2");
    config.window = {0, 5, 17};
    expect_same_in_parts({config, all_softmax(3), {}}, "windows");
}

TEST(CausalLM, linear_models_continue) {
    for (const auto& [name, options] : variants())
        expect_same_in_parts({test::small_config("llama"), all_linear(3, test::linear_mixer), options}, name);
}

TEST(CausalLM, hybrids_continue) {
    for (const auto& [name, options] : variants())
        expect_same_in_parts({test::small_config("qwen3"), keep_softmax(3, test::linear_mixer, {1}), options}, name);
}

TEST(CausalLM, gated_linear_attention_continues) {
    const Options options = find_variant("gla_v1")->options;
    const char* mixer = "gated_linear_attention";
    expect_same_in_parts({test::small_config("llama"), all_linear(3, mixer), options}, "all linear");
    expect_same_in_parts({test::small_config("qwen3"), keep_softmax(3, mixer, {1}), options}, "hybrid");
}

TEST(CausalLM, kimi_delta_attention_continues) {
    for (const char* variant : {"kda_v1", "kda_v2", "kda_v3"}) {
        const FoundVariant found = *find_variant(variant);
        expect_same_in_parts({test::small_config("qwen3"), keep_softmax(3, found.mixer->name(), {1}), found.options},
                             variant);
    }
}

TEST(CausalLM, float64_models_continue_without_kernels) {
    for (const char* variant : {"gdn_v4", "gla_v1", "kda_v1"}) {
        const FoundVariant found = *find_variant(variant);
        ModelConfig config = test::small_config("qwen3");
        config.window = {0, 5, 0};
        const ModelSpec spec{config, keep_softmax(3, found.mixer->name(), {0, 1}), found.options};
        const auto model = test::small_model(spec, 7, false, at::kDouble);
        const at::Tensor tokens = test::random_tokens(2, 20, 61, 2);
        std::vector<int64_t> every;
        for (int64_t t = 1; t < 20; ++t) every.push_back(t);
        EXPECT_LT(test::relative_error(in_parts(*model, tokens, every), model->logits(tokens)), 1e-5) << variant;
    }
}

TEST(CausalLM, a_copied_slot_goes_on_like_the_first) {
    for (const char* variant : {"gdn_v3", "gla_v1", "kda_v3"}) {
        const FoundVariant found = *find_variant(variant);
        const auto model = test::small_model(
            {test::small_config("qwen3"), keep_softmax(3, found.mixer->name(), {1}), found.options}, 7);
        const at::Tensor tokens = test::random_tokens(1, 40, 61, 2);
        ModelCache cache = model->make_cache({3, 40});
        const auto slot = [&](int64_t i) { return at::full({1}, i, tokens.options()); };
        model->hidden(tokens.narrow(1, 0, 30), cache, CacheChunk{slot(0), 0});
        cache.copy(slot(0), slot(2), 30);
        model->hidden(tokens.narrow(1, 5, 20), cache, CacheChunk{slot(0), 0});  // the first becomes another
        const at::Tensor rest = model->hidden(tokens.narrow(1, 30, 10), cache, CacheChunk{slot(2), 30});
        EXPECT_LT(test::relative_error(rest, model->hidden(tokens).narrow(1, 30, 10)), 1e-5) << variant;
    }
}

TEST(CausalLM, later_tokens_do_not_change_earlier_logits) {
    for (const auto& layout : {all_softmax(3), all_linear(3, test::linear_mixer)}) {
        const auto model = test::small_model({test::small_config(), layout, variants()["gdn_v3"]}, 7);
        at::Tensor tokens = test::random_tokens(1, time_, 61, 2);
        const at::Tensor before = model->logits(tokens);
        tokens[0][40] = (tokens[0][40].item<int64_t>() + 1) % 61;
        const at::Tensor after = model->logits(tokens);
        EXPECT_LT(test::relative_error(after.narrow(1, 0, 40), before.narrow(1, 0, 40)), 1e-6);
        EXPECT_GT(test::relative_error(after.narrow(1, 40, 1), before.narrow(1, 40, 1)), 0.1);
    }
}

TEST(CausalLM, sequences_of_a_batch_are_independent) {
    const auto model = test::small_model({test::small_config(), keep_softmax(3, test::linear_mixer, {0}), {}}, 7);
    const at::Tensor tokens = test::random_tokens(3, 20, 61, 2), all = model->logits(tokens);
    for (int64_t s = 0; s < 3; ++s)
        EXPECT_LT(test::relative_error(model->logits(tokens.narrow(0, s, 1)), all.narrow(0, s, 1)), 1e-6);
}

TEST(CausalLM, bfloat16_stays_near_fp32) {
    const ModelSpec spec{test::small_config("qwen3"), keep_softmax(3, test::linear_mixer, {1}), {}};
    const at::Tensor tokens = test::random_tokens(2, time_, 61, 2);
    const at::Tensor wide = test::small_model(spec, 7)->logits(tokens),
                     narrow = test::small_model(spec, 7, false, at::kBFloat16)->logits(tokens);
    EXPECT_EQ(narrow.scalar_type(), at::kBFloat16);
    EXPECT_LT(test::relative_error(narrow, wide), 0.05);
}

TEST(CausalLM, a_tied_head_is_the_embedding) {
    ModelConfig config = test::small_config();
    config.tied_head = true;
    const auto tied = test::small_model({config, all_softmax(3), {}}, 1);
    EXPECT_EQ(&tied->head_parameter(), &tied->embedding_parameter());
    config.tied_head = false;
    const auto untied = test::small_model({config, all_softmax(3), {}}, 1);
    EXPECT_NE(&untied->head_parameter(), &untied->embedding_parameter());
    EXPECT_EQ(untied->head_parameter().name, "lm_head.weight");
}

}  // namespace
}  // namespace amalgam
