// SPDX-License-Identifier: Apache-2.0
#include "evaluation/generation.h"

#include <gtest/gtest.h>

#include "../model/small_model.h"

namespace amalgam {
namespace {

/// The most likely token after all tokens so far, from a whole pass each time.
at::Tensor without_cache(const CausalLM& model, at::Tensor tokens, int64_t count) {
    const int64_t prompt = tokens.size(1);
    for (int64_t i = 0; i < count; ++i) {
        const at::Tensor logits = model.logits(tokens);
        tokens = at::cat({tokens, logits.select(1, logits.size(1) - 1).argmax(-1, true)}, 1);
    }
    return tokens.narrow(1, prompt, count);
}

TEST(Generation, is_the_argmax_of_a_whole_pass_at_every_step) {
    for (const auto& kept : {std::vector<int64_t>{}, {1}, {0, 1, 2}})
        for (const bool convolution : {false, true}) {
            const ModelSpec spec{test::small_config("qwen3"),
                                 keep_softmax(3, test::linear_mixer, kept),
                                 {{"short_convolution", convolution}}};
            const auto model = test::small_model(spec, 3);
            const at::Tensor prompt = test::random_tokens(3, 66, spec.config.vocabulary_size, 1);
            const at::Tensor found = generate_greedily(*model, prompt, 12);
            EXPECT_TRUE(at::equal(found, without_cache(*model, prompt, 12))) << describe(spec.layout);
            EXPECT_GT(found.max().item<int64_t>(), found.min().item<int64_t>());
        }
}

TEST(Generation, one_token_is_prompt_enough) {
    const ModelSpec spec{test::small_config(), keep_softmax(3, test::linear_mixer, {1}), {}};
    const auto model = test::small_model(spec, 3);
    const at::Tensor prompt = test::random_tokens(2, 1, spec.config.vocabulary_size, 1);
    EXPECT_TRUE(at::equal(generate_greedily(*model, prompt, 5), without_cache(*model, prompt, 5)));
}

TEST(Generation, stops_and_pads) {
    const ModelSpec spec{test::small_config(), all_softmax(3), {}};
    const auto model = test::small_model(spec, 3);
    const at::Tensor prompt = test::random_tokens(1, 8, spec.config.vocabulary_size, 1);
    const at::Tensor free = generate_greedily(*model, prompt, 10);
    const int64_t stop = free[0][4].item<int64_t>();
    int64_t at = 0;  // its first occurrence
    while (free[0][at].item<int64_t>() != stop) ++at;
    const at::Tensor found = generate_greedily(*model, prompt, 10, stop);
    ASSERT_EQ(found.sizes(), (std::vector<int64_t>{1, 10}));
    for (int64_t i = 0; i < 10; ++i) EXPECT_EQ(found[0][i].item<int64_t>(), i < at ? free[0][i].item<int64_t>() : stop);
}

TEST(Generation, a_sequence_that_stopped_stays_stopped_while_others_go_on) {
    const ModelSpec spec{test::small_config(), all_softmax(3), {}};
    const auto model = test::small_model(spec, 3);
    const at::Tensor prompt = test::random_tokens(4, 8, spec.config.vocabulary_size, 1);
    const at::Tensor free = generate_greedily(*model, prompt, 10);
    const int64_t stop = free[0][0].item<int64_t>();
    const at::Tensor found = generate_greedily(*model, prompt, 10, stop);
    for (int64_t s = 0; s < 4; ++s) {
        bool stopped = false;
        for (int64_t i = 0; i < 10; ++i) {
            stopped = stopped || free[s][i].item<int64_t>() == stop;
            EXPECT_EQ(found[s][i].item<int64_t>(), stopped ? stop : free[s][i].item<int64_t>()) << s << " " << i;
        }
    }
}

}  // namespace
}  // namespace amalgam
