// SPDX-License-Identifier: Apache-2.0
// Bytes that a rank really allocates for parameters, gradients and optimizer.
#include <ATen/ATen.h>

#include <atomic>

#include "../model/small_model.h"
#include "../storage/temporary_folder.h"
#include "sharded_student.h"
#include "training/distillation.h"
#include "training/trained_weights.h"

namespace amalgam {
namespace {

/// LibTorch's CPU allocator, counting.
class CountingAllocator : public at::Allocator {
  public:
    CountingAllocator() : inner_(c10::GetAllocator(at::kCPU)) { c10::SetAllocator(at::kCPU, this, 10); }
    ~CountingAllocator() override { c10::SetAllocator(at::kCPU, inner_, 10); }

    at::DataPtr allocate(size_t bytes) override {
        auto* block = new Block{inner_->allocate(bytes), bytes};
        live += int64_t(bytes);
        void* data = block->memory.get();
        return {data, block, &free_block, at::Device(at::kCPU)};
    }
    void copy_data(void* destination, const void* source, size_t bytes) const override {
        inner_->copy_data(destination, source, bytes);
    }

    static inline std::atomic<int64_t> live = 0;

  private:
    struct Block {
        at::DataPtr memory;
        size_t bytes;
    };
    static void free_block(void* context) {
        auto* block = static_cast<Block*>(context);
        live -= int64_t(block->bytes);
        delete block;
    }
    at::Allocator* inner_;
};

class ShardedMemoryTest : public testing::Test {
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
        const CountingAllocator allocator;
        const int64_t before = CountingAllocator::live;
        const test::ShardedCopy student(*original, true, world, options);
        NextToken objective(*student.model, 16);
        const auto weights = make_trained_weights(*student.model, student.shards.get(), objective.trained(), world, {});
        weights->begin_step();
        std::vector<double> losses(1);
        objective.accumulate(tokens, 0, 1.0, weights->gradients(), losses);
        weights->end_micro_batch();
        weights->reduce();
        EXPECT_TRUE(std::isfinite(weights->norm(1)));
        weights->update(1.0, 1.0, 1);
        return CountingAllocator::live - before;
    }

    const Communicator world = Communicator::duplicate(MPI_COMM_WORLD);
    ModelConfig config;
    std::unique_ptr<CausalLM> original;
};

TEST_F(ShardedMemoryTest, full_sharding_leaves_each_rank_its_share) {
    const double parameters = double(original->parameters().elements());
    const double expected = 16.0 * parameters / double(world.size());  // master, gradient, two moments
    const auto found = double(bytes_after_a_step(test::sharding(ShardingStrategy::full)));
    EXPECT_NEAR(found / expected, 1.0, 0.05) << found << " bytes";
}

TEST_F(ShardedMemoryTest, optimizer_sharding_keeps_the_weights_whole) {
    const double parameters = double(original->parameters().elements());
    const double expected = 4.0 * parameters + 16.0 * parameters / double(world.size());
    const auto found = double(bytes_after_a_step(test::sharding(ShardingStrategy::optimizer)));
    EXPECT_NEAR(found / expected, 1.0, 0.05) << found << " bytes";
}

}  // namespace
}  // namespace amalgam
