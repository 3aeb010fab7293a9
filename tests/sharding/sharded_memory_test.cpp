// SPDX-License-Identifier: Apache-2.0
// Bytes that a rank really allocates for parameters, gradients and optimizer, against what `amalgam check` says.
#include <ATen/ATen.h>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "../training/counting_allocator.h"
#include "estimate/sharding_estimate.h"
#include "objectives/distillation.h"
#include "optimizer/trained_weights.h"
#include "sharded_student.h"

namespace amalgam {
namespace {

class ShardedMemory : public testing::Test {
  protected:
    void SetUp() override {
        config = test::small_config("llama", 4);
        config.hidden_size = 72;
        config.query_heads = 6;
        config.key_value_heads = 2;
        config.head_dim = 16;
        config.intermediate_size = 232;
        config.vocabulary_size = 1009;
        original = test::small_model({config, keep_softmax(4, test::linear_mixer, {1}), {}}, 2, true);
    }

    /// Bytes that stay after a step, without those of the model it was copied from.
    int64_t bytes_after_a_step(const ShardingOptions& options) {
        const at::Tensor tokens = test::random_tokens(1, 12, config.vocabulary_size, 4);
        const test::CountingAllocator& allocator = test::CountingAllocator::install();
        const int64_t before = allocator.live();
        const test::ShardedCopy student(*original, true, world, options);
        NextToken objective(*student.model, 16);
        const auto weights = make_trained_weights(*student.model, student.shards.get(), objective.trained(), world,
                                                  {.optimizer = {.learning_rate = 1e-3, .learning_rate_rest = 1e-3}});
        weights->begin_step();
        std::vector<double> losses(1);
        objective.accumulate(tokens, 0, 1.0, weights->gradients(), losses);
        weights->end_micro_batch();
        weights->reduce();
        EXPECT_TRUE(std::isfinite(weights->norm(1)));
        weights->update(1.0, 1.0, 1);
        return allocator.live() - before;
    }

    /// Of the memory model, without what lives within a step only.
    double expected(ShardingStrategy sharding) const {
        StageSizes sizes;
        sizes.trained = sizes.student = double(original->parameters().elements());
        const RankMemory memory = estimate_sharding(sharding, sizes, world.size(), world.size()).memory;
        return memory.weights + memory.masters + memory.moments + memory.gradients;
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    ModelConfig config;
    std::unique_ptr<CausalLM> original;
};

TEST_F(ShardedMemory, full_sharding_leaves_each_rank_its_share) {
    const auto found = double(bytes_after_a_step(test::sharding(ShardingStrategy::full)));
    EXPECT_NEAR(found / expected(ShardingStrategy::full), 1.0, 0.05) << found << " bytes";
}

TEST_F(ShardedMemory, optimizer_sharding_keeps_the_weights_whole) {
    const auto found = double(bytes_after_a_step(test::sharding(ShardingStrategy::optimizer)));
    EXPECT_NEAR(found / expected(ShardingStrategy::optimizer), 1.0, 0.05) << found << " bytes";
}

}  // namespace
}  // namespace amalgam
