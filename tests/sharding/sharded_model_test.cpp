// SPDX-License-Identifier: Apache-2.0
// Sharded models that only run forward, and the accounting of what is gathered.
#include "sharding/sharded_model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "../training/small_training.h"
#include "evaluation/held_out.h"
#include "sharded_student.h"

namespace amalgam {
namespace {

class ShardedModels : public test::TrainingTest {
  protected:
    std::unique_ptr<CausalLM> whole(const std::string& family, at::ScalarType type) const {
        const ModelConfig c = test::small_config(family, 5);
        return test::small_model({c, keep_softmax(5, test::linear_mixer, {1, 3}), {}}, 3, false, type);
    }
    const at::Tensor tokens = test::random_tokens(2, 12, 61, 4);
};

TEST_F(ShardedModels, computes_what_the_whole_model_computes) {
    const c10::NoGradGuard no_grad;
    for (const char* family : {"llama", "qwen2", "qwen3"})
        for (const at::ScalarType type : {at::kFloat, at::kBFloat16})
            for (const auto strategy : test::strategies(world))
                for (const bool ahead : {true, false}) {
                    const auto model = whole(family, type);
                    ShardingOptions options = test::sharding(strategy);
                    options.gather_ahead = ahead;
                    const test::ShardedCopy copy(*model, false, world, options);
                    EXPECT_TRUE(at::equal(copy.model->logits(tokens), model->logits(tokens)))
                        << family << " " << type << " " << name_of(strategy);
                    EXPECT_TRUE(at::equal(copy.model->logits(tokens), model->logits(tokens))) << "once more";
                }
}

TEST_F(ShardedModels, holds_two_blocks_at_most) {
    const c10::NoGradGuard no_grad;
    const auto model = whole("llama", at::kFloat);
    for (const bool ahead : {true, false}) {
        ShardingOptions options = test::sharding(ShardingStrategy::full);
        options.gather_ahead = ahead;
        const test::ShardedCopy copy(*model, false, world, options);
        copy.model->logits(tokens);
        EXPECT_EQ(copy.shards->most_blocks_gathered(), ahead ? 2 : 1);
        EXPECT_EQ(copy.shards->blocks_gathered(), 0);
        for (int64_t layer = 0; layer < model->config().layers; ++layer)
            for (const FlatParameters* flat : copy.shards->flats_of(layer)) EXPECT_FALSE(flat->is_allocated());
    }
}

/// A student's change with every step, a teacher's never: those are gathered once.
TEST_F(ShardedModels, only_a_teachers_embedding_and_head_stay) {
    const c10::NoGradGuard no_grad;
    const auto model = whole("llama", at::kFloat);
    for (const bool trainable : {true, false}) {
        const test::ShardedCopy copy(*model, trainable, world, test::sharding(ShardingStrategy::full));
        copy.model->logits(tokens);
        EXPECT_EQ(copy.shards->flat_of(copy.model->head_parameter()).is_allocated(), !trainable);
    }
}

TEST_F(ShardedModels, what_was_prefetched_is_there_when_asked_for) {
    const c10::NoGradGuard no_grad;
    const auto model = whole("llama", at::kFloat);
    for (const bool ahead : {true, false}) {
        ShardingOptions options = test::sharding(ShardingStrategy::full);
        options.gather_ahead = ahead;
        const test::ShardedCopy copy(*model, true, world, options);
        copy.shards->prefetch(WeightsOnDemand::outside_blocks);
        copy.shards->prefetch(0);
        copy.shards->prefetch(0);
        EXPECT_EQ(copy.shards->blocks_gathered(), ahead ? 1 : 0);
        EXPECT_TRUE(at::equal(copy.model->logits(tokens), model->logits(tokens)));
        EXPECT_EQ(copy.shards->blocks_gathered(), 0);
    }
}

TEST_F(ShardedModels, weights_stay_while_anybody_holds_them) {
    const auto model = whole("llama", at::kFloat);
    const test::ShardedCopy copy(*model, true, world, test::sharding(ShardingStrategy::full));
    const FlatParameters& flat = copy.shards->flat_of(copy.model->head_parameter());
    {
        const WeightsHold outer(copy.shards.get(), WeightsOnDemand::outside_blocks);
        { const WeightsHold inner(copy.shards.get(), WeightsOnDemand::outside_blocks); }
        EXPECT_TRUE(flat.is_allocated());
        EXPECT_TRUE(at::equal(copy.model->head_parameter().compute, model->head_parameter().compute));
    }
    EXPECT_FALSE(flat.is_allocated());
}

template <class Holder>
concept gives_head = requires(Holder holder) {
    std::forward<Holder>(holder).head();
};
template <class Model>
concept gives_blocks = requires(const Model& model) {
    model.blocks();
};

TEST_F(ShardedModels, weights_are_given_out_only_by_what_keeps_them_alive) {
    static_assert(gives_head<const HeldOuterWeights&>);
    static_assert(!gives_head<HeldOuterWeights>, "it would be gone when its head is read");
    static_assert(!gives_head<const CausalLM&> && !gives_blocks<CausalLM>, "nobody would hold them");

    const c10::NoGradGuard no_grad;
    const auto model = whole("llama", at::kFloat);
    const test::ShardedCopy copy(*model, true, world, test::sharding(ShardingStrategy::full));
    const FlatParameters& head = copy.shards->flat_of(copy.model->head_parameter());
    {
        const HeldOuterWeights outer(*copy.model), of_whole(*model);
        EXPECT_TRUE(at::equal(copy.model->logits(tokens), model->logits(tokens)));  // holds and releases them too
        EXPECT_TRUE(head.is_allocated());
        EXPECT_TRUE(at::equal(outer.head(), of_whole.head()));
        EXPECT_TRUE(at::equal(outer.norm(), of_whole.norm()));
        EXPECT_TRUE(at::equal(outer.embed(tokens), of_whole.embed(tokens)));
    }
    EXPECT_FALSE(head.is_allocated());

    const at::Tensor x = at::ones({1, 3, model->config().hidden_size});
    {
        const HeldBlock block(*copy.model, 2), of_whole(*model, 2);
        EXPECT_TRUE(at::equal(copy.model->logits(tokens), model->logits(tokens)));
        for (const FlatParameters* flat : copy.shards->flats_of(2)) EXPECT_TRUE(flat->is_allocated());
        EXPECT_TRUE(at::equal(block->mixer_input(x), of_whole->mixer_input(x)));
    }
    for (const FlatParameters* flat : copy.shards->flats_of(2)) EXPECT_FALSE(flat->is_allocated());
}

TEST_F(ShardedModels, unused_parameters_are_never_gathered) {
    const auto model = whole("llama", at::kFloat);
    const test::ShardedCopy copy(*model, false, world, test::sharding(ShardingStrategy::full),
                                 [](const Parameter& p) { return test::contains(p.name, ".mlp."); });
    const WeightsHold hold(copy.shards.get(), 0);
    for (FlatParameters* flat : copy.shards->flats_of(0))
        EXPECT_EQ(flat->is_allocated(), test::contains(flat->parameters()[0]->name, ".mlp."));
}

/// Uneven: 5 sequences in micro-batches of 2 are 3 for any number of ranks.
TEST_F(ShardedModels, held_out_measurements_are_the_same_with_a_rank_that_has_nothing_to_do) {
    const auto student = new_student();
    const HeldOutSet set = read_held_out(*file, 5, length);
    TeacherStates states(*teacher, 0);
    const auto expected = held_out_kl(*student, states, set, 2, 20, world);
    for (const auto strategy : test::strategies(world)) {
        const test::ShardedCopy student_copy(*student, true, world, test::sharding(strategy)),
            teacher_copy(*teacher, false, world, test::sharding(strategy));
        for (const int64_t cache_bytes : {int64_t{0}, int64_t{1} << 20}) {
            TeacherStates sharded_states(*teacher_copy.model, cache_bytes);
            for (int round = 0; round < 2; ++round)
                EXPECT_EQ(held_out_kl(*student_copy.model, sharded_states, set, 2, 20, world), expected);
        }
        EXPECT_EQ(measure_tokens(*student_copy.model, nullptr, set, 2, 20, world).loss,
                  measure_tokens(*student, nullptr, set, 2, 20, world).loss);
    }
}

TEST_F(ShardedModels, a_missing_tensor_is_named) {
    const auto model = whole("llama", at::kFloat);
    CausalLM other({test::small_config("qwen2", 5), all_softmax(5), {}}, at::kCPU, at::kFloat, false,
                   Allocation::later);
    ShardedModel shards(other, false, world, test::sharding(ShardingStrategy::full));
    const ModelSource source(*model, "the whole model");
    test::expect_error([&] { load_weights(shards, {&source}); }, ExitCode::bad_input,
                       {"the whole model", "model.layers.0.self_attn.q_proj"});
}

}  // namespace
}  // namespace amalgam
