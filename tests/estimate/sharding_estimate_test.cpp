// SPDX-License-Identifier: Apache-2.0
// Sharded memory and traffic against numbers worked out by hand.
#include "estimate/sharding_estimate.h"

#include <gtest/gtest.h>

#include "../job/error_text.h"
#include "estimate/job_estimate.h"
#include "estimate/known_shapes.h"
#include "estimate/model_sizes.h"

namespace amalgam {
namespace {

/// 1000 parameters of the student, all trained, 800 of the teacher; bf16, gradients reduced in fp32, 2 micro-batches.
StageSizes thousand() {
    StageSizes sizes;
    sizes.trained = sizes.student = 1000;
    sizes.teacher = 800;
    sizes.block = sizes.trained_block = 100;
    sizes.outside = sizes.trained_outside = 300;
    sizes.compute_bytes = 2;
    sizes.micro_batches = 2;
    sizes.activation_bytes = 7;
    sizes.logit_bytes = 5;
    return sizes;
}

TEST(ShardingEstimate, none) {
    const ShardingEstimate e = estimate_sharding(ShardingStrategy::none, thousand(), 16, 8);
    EXPECT_DOUBLE_EQ(e.memory.weights, 2000);
    EXPECT_DOUBLE_EQ(e.memory.masters, 4000);
    EXPECT_DOUBLE_EQ(e.memory.moments, 8000);
    EXPECT_DOUBLE_EQ(e.memory.gradients, 4000);
    EXPECT_DOUBLE_EQ(e.memory.gathered, 0);
    EXPECT_DOUBLE_EQ(e.memory.teacher, 1600);
    EXPECT_DOUBLE_EQ(e.memory.total(), 2000 + 4000 + 8000 + 4000 + 1600 + 7 + 5);
    EXPECT_DOUBLE_EQ(e.gathered_per_step, 0);
    EXPECT_DOUBLE_EQ(e.reduced_per_step, 7500);  // all-reduce: 2 x 15/16 x 4000
}

TEST(ShardingEstimate, optimizer) {
    const ShardingEstimate e = estimate_sharding(ShardingStrategy::optimizer, thousand(), 16, 8);
    EXPECT_DOUBLE_EQ(e.memory.weights, 2000);
    EXPECT_DOUBLE_EQ(e.memory.masters, 250);
    EXPECT_DOUBLE_EQ(e.memory.moments, 500);
    EXPECT_DOUBLE_EQ(e.memory.gradients, 250);
    EXPECT_DOUBLE_EQ(e.memory.gathered, 4 * 500);  // gradients of what is outside and of two blocks
    EXPECT_DOUBLE_EQ(e.memory.teacher, 1600);
    EXPECT_DOUBLE_EQ(e.gathered_per_step, 1875);  // 15/16 x 2000, once
    EXPECT_DOUBLE_EQ(e.reduced_per_step, 7500);   // twice 15/16 x 4000
}

TEST(ShardingEstimate, full) {
    const ShardingEstimate e = estimate_sharding(ShardingStrategy::full, thousand(), 16, 8);
    EXPECT_DOUBLE_EQ(e.memory.weights, 0);
    EXPECT_DOUBLE_EQ(e.memory.masters, 250);
    EXPECT_DOUBLE_EQ(e.memory.gathered, 6 * 500);
    EXPECT_DOUBLE_EQ(e.memory.teacher, 2 * (50 + 300));
    EXPECT_DOUBLE_EQ(e.gathered_per_step, 15.0 / 16 * 2 * (4 * 1000 + 2 * (800 - 300)));
    EXPECT_DOUBLE_EQ(e.reduced_per_step, 7500);
}

TEST(ShardingEstimate, hybrid_shares_within_a_node_and_reduces_shards_across) {
    const ShardingEstimate e = estimate_sharding(ShardingStrategy::hybrid, thousand(), 32, 8);
    EXPECT_DOUBLE_EQ(e.memory.masters, 500);
    EXPECT_DOUBLE_EQ(e.memory.moments, 1000);
    EXPECT_DOUBLE_EQ(e.memory.teacher, 2 * (100 + 300));
    EXPECT_DOUBLE_EQ(e.gathered_per_step, 7.0 / 8 * 2 * (4 * 1000 + 2 * (800 - 300)));
    EXPECT_DOUBLE_EQ(e.reduced_per_step, 7.0 / 8 * 8000 + 2 * 500 * 3.0 / 4);
    // On one node there is nothing to reduce across nodes: it is full.
    const ShardingEstimate one = estimate_sharding(ShardingStrategy::hybrid, thousand(), 8, 8);
    const ShardingEstimate full = estimate_sharding(ShardingStrategy::full, thousand(), 8, 8);
    EXPECT_DOUBLE_EQ(one.memory.total(), full.memory.total());
    EXPECT_DOUBLE_EQ(one.reduced_per_step, full.reduced_per_step);
}

TEST(ShardingEstimate, float32_shares_the_masters_only_where_they_are_whole) {
    StageSizes sizes = thousand();
    sizes.compute_bytes = 4;
    EXPECT_DOUBLE_EQ(estimate_sharding(ShardingStrategy::none, sizes, 2, 2).memory.weights, 0);
    EXPECT_DOUBLE_EQ(estimate_sharding(ShardingStrategy::optimizer, sizes, 2, 2).memory.weights, 4000);
    sizes.deterministic = true;
    EXPECT_DOUBLE_EQ(estimate_sharding(ShardingStrategy::full, sizes, 2, 2).memory.gradients, 6000);
}

TEST(ShardingEstimate, only_ways_that_make_sense) {
    const auto names = [](int64_t ranks, int64_t per_node) {
        std::string all;
        for (const ShardingEstimate& e : estimate_all_shardings(thousand(), ranks, per_node))
            all += name_of(e.strategy) + " ";
        return all;
    };
    EXPECT_EQ(names(1, 8), "none ");
    EXPECT_EQ(names(8, 8), "none optimizer full ");
    EXPECT_EQ(names(16, 8), "none optimizer hybrid full ");
    EXPECT_EQ(names(16, 1), "none optimizer full ");
}

TEST(ShardingEstimate, auto_takes_the_first_that_fits_with_a_tenth_to_spare) {
    const auto possible = estimate_all_shardings(thousand(), 32, 8);
    const auto taken = [&](double memory) { return choose_sharding(possible, memory).strategy; };
    EXPECT_EQ(taken(0), ShardingStrategy::none);  // memory not known
    EXPECT_EQ(taken(possible[0].memory.total() / 0.9 + 1), ShardingStrategy::none);
    EXPECT_EQ(taken(possible[0].memory.total() / 0.9 - 1), ShardingStrategy::optimizer);
    EXPECT_EQ(taken(possible[1].memory.total() / 0.9 - 1), ShardingStrategy::hybrid);
    EXPECT_EQ(taken(possible[2].memory.total() / 0.9 - 1), ShardingStrategy::full);
    EXPECT_EQ(taken(1), ShardingStrategy::full);  // nothing fits: the smallest
}

TEST(KnownShapes, have_the_published_numbers_of_parameters) {
    // Of the safetensors on Hugging Face.
    const std::vector<std::pair<std::string, double>> published = {
        {"qwen2.5-0.5b", 494032768},  {"qwen2.5-1.5b", 1543714304},   {"qwen2.5-3b", 3085938688},
        {"qwen2.5-7b", 7615616512},   {"qwen2.5-14b", 14770033664},   {"qwen2.5-32b", 32763876352},
        {"qwen2.5-72b", 72706203648}, {"llama-3.2-1b", 1235814400},   {"llama-3.2-3b", 3212749824},
        {"llama-3.1-8b", 8030261248}, {"llama-3.1-70b", 70553706496}, {"smollm2-135m", 134515008},
    };
    ASSERT_EQ(published.size(), known_shapes().size());
    for (const auto& [name, parameters] : published) {
        const ModelConfig& teacher = find_shape(name);
        EXPECT_EQ(ModelSizes(teacher, softmax_mixer, {}).parameters(double(teacher.layers)), parameters) << name;
    }
    EXPECT_TRUE(contains(error_text([] { find_shape("qwen"); }), "qwen2.5-72b"));
}

/// bf16 distillation of 1 x 4096 tokens per micro-batch, 4096 sequences a batch, on H100s of 80 GB, 8 a node.
Estimate large(const std::string& name, int64_t ranks) {
    Job job;
    job.distill.tokens = 10000000000;
    job.distill.batch_sequences = 4096;
    job.distill.micro_batch_sequences = 1;
    job.select.rule = "all_linear";
    job.evaluate.sequences = 0;
    return estimate_job(job, find_shape(name), {.ranks = ranks, .memory_per_rank = 80e9});
}

TEST(ShardingEstimate, qwen72_b_by_hand) {
    const Estimate estimate = large("qwen2.5-72b", 1024);
    const StageEstimate& distill = estimate.stages.at(0);
    // Block: q, k, v, o, gate 5 x 8192^2 = 335,544,320; beta, decay 2 x 8192 x 64 = 1,048,576; A_log, dt_bias 128; norm
    // 128; MLP 3 x 8192 x 29568 = 726,663,168; norms 16,384: 1,063,272,704. Outside: 2 x 152064 x 8192 + 8192 =
    // 2,491,424,768.
    const double block = 1063272704, outside = 2491424768, student = 80 * block + outside;
    EXPECT_EQ(estimate.student_parameters, student);
    const RankMemory& none = distill.shardings.at(0).memory;
    EXPECT_DOUBLE_EQ(none.weights + none.masters + none.moments + none.gradients, 18 * student);  // 1.58 TB
    const ShardingEstimate& full = distill.shardings.at(3);
    ASSERT_EQ(full.strategy, ShardingStrategy::full);
    EXPECT_DOUBLE_EQ(full.memory.masters + full.memory.moments + full.memory.gradients, 16 * student / 1024);
    EXPECT_DOUBLE_EQ(full.memory.gathered, 6 * (outside + 2 * block));  // 27.7 GB
    EXPECT_EQ(distill.micro_batch_sequences, 1);
    // 4 micro-batches: 2 x 4 gathers of the student, 4 of the teacher's blocks.
    EXPECT_DOUBLE_EQ(full.gathered_per_step,
                     2 * 1023.0 / 1024 * (8 * student + 4 * (estimate.teacher_parameters - outside)));
    EXPECT_DOUBLE_EQ(full.reduced_per_step, 4 * 4 * student * 1023 / 1024);
}

TEST(ShardingEstimate, more_ranks_never_need_more_memory) {
    for (const std::string name : {"qwen2.5-7b", "qwen2.5-32b", "qwen2.5-72b"}) {
        std::vector<double> before;
        for (const int64_t ranks : {16, 64, 256, 1024, 4096}) {
            std::vector<double> now;
            for (const ShardingEstimate& e : large(name, ranks).stages.at(0).shardings) now.push_back(e.memory.total());
            for (size_t i = 0; i < before.size(); ++i) EXPECT_LE(now.at(i), before[i]) << name << " " << ranks;
            before = now;
        }
    }
}

}  // namespace
}  // namespace amalgam
