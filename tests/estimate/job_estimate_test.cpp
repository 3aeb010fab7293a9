// SPDX-License-Identifier: Apache-2.0
#include "estimate/job_estimate.h"

#include <gtest/gtest.h>

#include "../job/error_text.h"
#include "estimate/check_table.h"
#include "estimate/gpu_kinds.h"
#include "estimate/known_shapes.h"

namespace amalgam {
namespace {

const ModelConfig& qwen_1_5b = find_shape("qwen2.5-1.5b");
const ModelConfig& qwen_7b = find_shape("qwen2.5-7b");

Job paper_job() {
    Job job;
    job.align.tokens = 100000000;
    job.align.batch_sequences = 96;
    job.select.rule = "kl_guided";
    job.score.tokens = 200000000;
    job.distill.tokens = 600000000;
    job.score.micro_batch_sequences = job.distill.micro_batch_sequences = 1;
    return job;
}

const StageEstimate& stage(const Estimate& estimate, const std::string& name) {
    for (const StageEstimate& stage : estimate.stages)
        if (stage.name == name) return stage;
    throw Error("no stage " + name);
}

TEST(JobEstimate, parameters_of_the_teachers) {
    // The published counts.
    const Estimate small = estimate_job(paper_job(), qwen_1_5b, {});
    EXPECT_EQ(small.teacher_parameters, 1543714304.0);
    const Estimate large = estimate_job(paper_job(), qwen_7b, {});
    EXPECT_EQ(large.teacher_parameters, 7615616512.0);
}

TEST(JobEstimate, parameters_of_the_student_by_hand) {
    Job job = paper_job();
    job.select.rule = "all_linear";
    ModelConfig tiny;
    tiny.hidden_size = 8, tiny.layers = 2, tiny.query_heads = 2, tiny.key_value_heads = 1, tiny.head_dim = 4;
    tiny.intermediate_size = 16, tiny.vocabulary_size = 32, tiny.tied_head = true;
    // Mixer: q, k, v, o, gate 5 x 64; beta, decay 2 x 8 x 2; A_log, dt_bias 2 x 2; norm 4. Block: + MLP 3 x 128 +
    // norms 16.
    const double mixer = 5 * 64 + 32 + 4 + 4, block = mixer + 384 + 16;
    EXPECT_EQ(estimate_job(job, tiny, {}).student_parameters, 2 * block + 32 * 8 + 8);
    job.student.options = {{"output_gate", false}, {"output_norm", false}, {"short_convolution", true}};
    EXPECT_EQ(estimate_job(job, tiny, {}).student_parameters, 2 * (block - 64 - 4 + 12 * 8) + 32 * 8 + 8);
}

TEST(JobEstimate, distillation_memory_and_checkpoint) {
    const Estimate estimate = estimate_job(paper_job(), qwen_1_5b, {});
    const StageEstimate& distill = stage(estimate, "distill");
    ASSERT_EQ(distill.shardings.size(), 1u);  // one rank has nobody to share with
    const RankMemory& memory = distill.sharding().memory;
    const double student = estimate.student_parameters;
    EXPECT_DOUBLE_EQ(memory.weights, 2 * student);
    EXPECT_DOUBLE_EQ(memory.masters, 4 * student);
    EXPECT_DOUBLE_EQ(memory.moments, 8 * student);
    EXPECT_DOUBLE_EQ(memory.gradients, 4 * student);
    EXPECT_DOUBLE_EQ(memory.gathered, 0);
    EXPECT_DOUBLE_EQ(memory.teacher, 2 * estimate.teacher_parameters);
    EXPECT_DOUBLE_EQ(distill.checkpoint_bytes, 12 * student);
    // 4096 tokens; per token 28 (4 H + 3 I) + 7 (3 A + 3 g d) + 21 (6 A + A d / 64 + A) + 3 H, all bf16.
    const double blocks = 28 * (4 * 1536 + 3 * 8960) + 7 * (3 * 1536 + 3 * 256) + 21 * (9 * 1536);
    EXPECT_DOUBLE_EQ(memory.activations, 2 * 4096 * (blocks + 3 * 1536));
    // All 4096 tokens at once: two bf16 logits; the head's gradient needs no place of its own on a GPU.
    EXPECT_DOUBLE_EQ(memory.logits, 151936.0 * 4096 * 2 * 2);
    const Machine cpu{.cpu = true, .fast_bfloat16 = false};  // fp32, 1024 tokens at once
    EXPECT_DOUBLE_EQ(stage(estimate_job(paper_job(), qwen_1_5b, cpu), "distill").sharding().memory.logits,
                     151936.0 * (1024 * 2 * 4 + 4 * 1536));
    Job job = paper_job();
    job.precision = ComputePrecision::float32;
    const Estimate full = estimate_job(job, qwen_1_5b, {});
    EXPECT_DOUBLE_EQ(stage(full, "distill").sharding().memory.weights, 0);  // the masters are computed with
    EXPECT_DOUBLE_EQ(stage(full, "distill").sharding().memory.teacher, 4 * full.teacher_parameters);
    job.deterministic = true;
    EXPECT_DOUBLE_EQ(stage(estimate_job(job, qwen_1_5b, {}), "distill").sharding().memory.gradients, 12 * student);
}

TEST(JobEstimate, evaluation_has_a_loss_chunk_of_its_own) {
    Job job = paper_job();
    const auto logits = [&] { return stage(estimate_job(job, qwen_1_5b, {}), "evaluate").sharding().memory.logits; };
    const double automatic = logits();
    job.distill.loss_chunk_tokens = 64;
    EXPECT_EQ(logits(), automatic);
    job.evaluate.loss_chunk_tokens = 64;
    EXPECT_DOUBLE_EQ(logits(), 151936.0 * 64 * 2 * 2);
    EXPECT_NE(logits(), automatic);
}

TEST(JobEstimate, recall_is_one_pass_of_both_models_over_its_questions) {
    Job job = paper_job();
    const auto of = [&](int64_t ranks) {
        Machine machine;
        machine.ranks = ranks;
        return stage(estimate_job(job, qwen_1_5b, machine), "evaluate");
    };
    const StageEstimate without = of(1);
    job.evaluate.recall.questions = 10;
    job.evaluate.recall.lengths = {1024};
    const StageEstimate with = of(1);
    // 10 x 4 kinds x 5 depths x 1024 tokens, two flop a parameter of the blocks (1.31 G of each model), and attention.
    EXPECT_NEAR(with.flops - without.flops, 10 * 4 * 5 * 1024 * 2.0 * 2 * 1.31e9, 0.15 * (with.flops - without.flops));
    EXPECT_GT(with.seconds, without.seconds);
    EXPECT_GT(with.sharding().memory.activations, without.sharding().memory.activations);
    job.evaluate.recall.lengths = {1024, 2048};
    EXPECT_NEAR((of(1).flops - without.flops) / (with.flops - without.flops), 3.0, 0.1);
    // 25 batches of eight questions: no more ranks than these have something to do.
    job.evaluate.recall.lengths = {1024};
    EXPECT_DOUBLE_EQ(of(64).seconds, of(128).seconds);
    EXPECT_LT(of(25).seconds, of(5).seconds);
}

TEST(JobEstimate, requests_are_answered_by_both_models) {
    const auto of = [](const RequestCounts& requests, int64_t ranks = 1) {
        Machine machine;
        machine.ranks = ranks;
        return stage(estimate_job(paper_job(), qwen_1_5b, machine, requests), "evaluate");
    };
    const StageEstimate without = of({});
    const RequestCounts judged{.judged = 1000,
                               .judged_batches = 50,
                               .judged_tokens = 2e5,
                               .judged_length = 200,
                               .judged_predictions = 1e4,
                               .longest_judged = 8000};
    const StageEstimate judging = of(judged);
    // Two flop a parameter of the blocks (1.31 G of each model), and of the head where a prediction is made.
    EXPECT_NEAR(judging.flops - without.flops, 2e5 * 2 * 2.0 * 1.31e9 + 1e4 * 2 * 2.0 * 151936 * 1536,
                0.1 * (judging.flops - without.flops));
    EXPECT_GT(judging.sharding().memory.activations, without.sharding().memory.activations);
    EXPECT_DOUBLE_EQ(of(judged, 64).seconds, of(judged, 128).seconds) << "no more ranks than batches";
    const RequestCounts generated{.generating = 100,
                                  .prompt_tokens = 5e4,
                                  .prompt_length = 500,
                                  .new_tokens = 1e4,
                                  .new_length = 1100,
                                  .longest_generating = 32000};
    const StageEstimate generating = of(generated);
    const double steps = 1e4 * 2 * 2.0 * 1.544e9;
    EXPECT_NEAR(generating.flops - without.flops, 5e4 * 2 * 2.0 * 1.31e9 + steps,
                0.1 * (generating.flops - without.flops));
    // A step takes as long as four tokens of a prompt.
    EXPECT_NEAR((generating.seconds - without.seconds) * 989e12 * 0.35, generating.flops - without.flops + 3 * steps,
                0.1 * (generating.flops - without.flops + 3 * steps));
    RequestCounts short_answers = generated;
    short_answers.longest_generating = 1000;
    // Keys and values of two heads of 128 in all 28 layers, bf16.
    EXPECT_DOUBLE_EQ(generating.sharding().memory.activations - of(short_answers).sharding().memory.activations,
                     31000.0 * 28 * 2 * 2 * 128 * 2);
}

TEST(JobEstimate, prompts_are_computed_in_chunks) {
    const auto memory = [](const ModelConfig& teacher, double prompt_tokens) {
        const RequestCounts requests{.generating = 1, .prompt_tokens = prompt_tokens, .prompt_length = 1000};
        return stage(estimate_job(paper_job(), teacher, {}, requests), "evaluate").sharding().memory.activations;
    };
    // 2^30 bytes of gate and up, bf16: 8960 and 18944 wide.
    EXPECT_LT(memory(qwen_1_5b, 29000), memory(qwen_1_5b, 29959));
    EXPECT_EQ(memory(qwen_1_5b, 29959), memory(qwen_1_5b, 1e6));
    EXPECT_LT(memory(qwen_7b, 14000), memory(qwen_7b, 14169));
    EXPECT_EQ(memory(qwen_7b, 14169), memory(qwen_7b, 1e6));
}

TEST(JobEstimate, recomputed_activations) {
    Job job = paper_job();
    const double kept_flops = stage(estimate_job(job, qwen_1_5b, {}), "distill").flops;
    job.sharding.activations = Activations::recompute;
    job.sharding.reduce = ReductionPrecision::bfloat16;
    const StageEstimate distill = stage(estimate_job(job, qwen_1_5b, {.ranks = 2}), "distill");
    // 28 inputs of blocks, one linear block (4 H + 3 I + 9 A), 3 H around the head, all bf16.
    EXPECT_DOUBLE_EQ(distill.sharding().memory.activations,
                     2.0 * 4096 * (28 * 1536 + 4 * 1536 + 3 * 8960 + 9 * 1536 + 3 * 1536));
    EXPECT_GT(distill.flops, 1.2 * kept_flops);
    EXPECT_LT(distill.flops, 1.26 * kept_flops);  // of 8 parts a quarter more
    const ShardingEstimate& optimizer = distill.shardings.at(1);
    // 16 micro-batches, half of 2 bytes for each parameter.
    EXPECT_DOUBLE_EQ(optimizer.reduced_per_step, 16 * 2 * estimate_job(job, qwen_1_5b, {}).student_parameters / 2);
}

TEST(JobEstimate, ranks_that_share_sequences_keep_a_part_of_the_activations) {
    Job job = paper_job();
    job.score.teacher_cache_gib = 0;
    job.evaluate.sequences = 4;
    job.evaluate.sequence_length = 65536;
    const Estimate whole = estimate_job(job, qwen_1_5b, {.ranks = 4});
    job.sharding.context = 2;
    const Estimate shared = estimate_job(job, qwen_1_5b, {.ranks = 8});
    // Keys and values of two heads before the second half.
    const auto keys = [](int64_t length) { return 2.0 * 2 * 2 * 128 * double(length) / 2; };
    // The first half of the second half's queries.
    const auto queries = [](int64_t length) { return 2.0 * 1536 * double(length) / 4; };
    for (const char* name : {"align", "score", "distill"}) {
        const StageEstimate &a = stage(whole, name), &b = stage(shared, name);
        // Keys and values of softmax layers, and twice of the one at work. A candidate has one. And of the one at work
        // queries, with outputs and their gradients, and what came back.
        const bool align = name == std::string("align"), score = name == std::string("score");
        const double softmax_layers = align ? 0 : score ? 1 : double(shared.kept_layers);
        const int64_t length = align ? job.align.sequence_length : job.distill.sequence_length;
        EXPECT_DOUBLE_EQ(b.sharding().memory.activations,
                         a.sharding().memory.activations / 2 +
                             double(b.micro_batch_sequences) *
                                 (keys(length) * (softmax_layers + 2) + queries(length) * (align ? 1 + 1 : 3 + 1)))
            << name;
        EXPECT_EQ(b.micro_batch_sequences, a.micro_batch_sequences) << name;
        EXPECT_DOUBLE_EQ(b.seconds, a.seconds / 2) << name;
    }
    // One sequence or question at a time, forward only.
    EXPECT_DOUBLE_EQ(stage(shared, "evaluate").sharding().memory.activations,
                     stage(whole, "evaluate").sharding().memory.activations / 2 + 2 * (keys(65536) + queries(65536)));
    EXPECT_DOUBLE_EQ(stage(shared, "evaluate").seconds, stage(whole, "evaluate").seconds / 2);
    // Of documents that are kept apart no queries travel.
    job.data.documents = DocumentBorders::separate;
    EXPECT_DOUBLE_EQ(stage(estimate_job(job, qwen_1_5b, {.ranks = 8}), "evaluate").sharding().memory.activations,
                     stage(whole, "evaluate").sharding().memory.activations / 2 + 2 * keys(65536));
    job.data.documents = DocumentBorders::joined;
    const auto as_they_are = [&](int64_t context, int64_t ranks) {
        job.select.rule = "recall_guided";
        job.score.sequence_length = 16384;
        job.score.recall.lengths = {32768};
        job.sharding.context = context;
        return stage(estimate_job(job, qwen_1_5b, {.ranks = ranks}), "score");
    };
    EXPECT_DOUBLE_EQ(as_they_are(2, 8).sharding().memory.activations,
                     as_they_are(1, 4).sharding().memory.activations / 2 + 2 * (keys(32768) + queries(32768)));
    EXPECT_LT(as_they_are(2, 8).sharding().memory.logits, as_they_are(1, 4).sharding().memory.logits + 1);
}

TEST(JobEstimate, align_trains_mixers_but_holds_the_whole_student) {
    const Estimate estimate = estimate_job(paper_job(), qwen_1_5b, {});
    const RankMemory& memory = stage(estimate, "align").sharding().memory;
    // A linear mixer of H = A = 1536, 12 heads of 128: 5 H A + 2 H h + 2 h + d.
    const double mixers = 28.0 * (5 * 1536 * 1536 + 2 * 1536 * 12 + 24 + 128);
    const double rest = 28.0 * (3 * 1536 * 8960 + 2 * 1536) + 151936 * 1536 + 1536;
    EXPECT_DOUBLE_EQ(memory.masters, 4 * (mixers + rest));
    EXPECT_DOUBLE_EQ(memory.moments, 8 * mixers);
    EXPECT_DOUBLE_EQ(memory.gradients, 4 * mixers);
    EXPECT_DOUBLE_EQ(stage(estimate, "align").checkpoint_bytes, 4 * (mixers + rest) + 8 * mixers);
}

TEST(JobEstimate, checkpoints_are_written_by_all_nodes) {
    const auto seconds = [](int64_t ranks) {
        return stage(estimate_job(paper_job(), qwen_1_5b, {.ranks = ranks, .node_bandwidth = 2e9}), "distill")
            .checkpoint_seconds;
    };
    const double bytes = stage(estimate_job(paper_job(), qwen_1_5b, {}), "distill").checkpoint_bytes;
    EXPECT_DOUBLE_EQ(seconds(1), bytes / 2e9);
    EXPECT_DOUBLE_EQ(seconds(8), bytes / 2e9);  // one node
    EXPECT_DOUBLE_EQ(seconds(32), bytes / 8e9);
}

TEST(JobEstimate, arithmetic_is_about_eight_flop_per_parameter_and_token) {
    // Teacher forward 2 + student forward and backward 6, and mixing on top.
    const Estimate estimate = estimate_job(paper_job(), qwen_1_5b, {});
    const StageEstimate& distill = stage(estimate, "distill");
    const double rough = distill.tokens * (2 * estimate.teacher_parameters + 6 * estimate.student_parameters);
    EXPECT_GT(distill.flops, rough);
    EXPECT_LT(distill.flops, 1.15 * rough);
    EXPECT_EQ(distill.steps, 4577);
    EXPECT_EQ(distill.tokens, 4577.0 * 32 * 4096);
}

TEST(JobEstimate, time_scales_with_ranks_and_rounds) {
    Job job = paper_job();
    job.score.teacher_cache_gib = 0;
    const Estimate one = estimate_job(job, qwen_1_5b, {.ranks = 1}), eight = estimate_job(job, qwen_1_5b, {.ranks = 8});
    EXPECT_NEAR(stage(one, "distill").seconds / stage(eight, "distill").seconds, 8, 1e-9);
    EXPECT_NEAR(stage(one, "score").seconds / stage(eight, "score").seconds, 28.0 / 4,
                1e-9);  // 28 candidates: 4 rounds
    EXPECT_EQ(one.flops, eight.flops);
    Job grouped = job;
    grouped.score.ranks_per_candidate = 2;
    const Estimate groups = estimate_job(grouped, qwen_1_5b, {.ranks = 8});  // 4 groups: 7 rounds of half the time
    EXPECT_NEAR(stage(one, "score").seconds / stage(groups, "score").seconds, 8, 1e-9);
    const double expected = stage(one, "distill").flops / (989e12 * 0.35);
    EXPECT_NEAR(stage(one, "distill").seconds, expected, 1e-6 * expected);
}

TEST(JobEstimate, states_of_the_teacher_that_are_kept_are_computed_once_in_a_group) {
    Job job = paper_job();
    job.score.tokens = 1000000;
    const double rounds = stage(estimate_job(job, qwen_1_5b, {}), "score").flops;
    job.score.teacher_cache_gib = 0;
    const double every_time = stage(estimate_job(job, qwen_1_5b, {}), "score").flops;
    // Of 8 parts of a step the teacher's 2 but for its head, in 27 of 28 candidates.
    EXPECT_GT(every_time, 1.15 * rounds);
    EXPECT_LT(every_time, 1.45 * rounds);
}

TEST(JobEstimate, time_follows_from_measured_peaks) {
    const auto seconds = [](double peak, double float32_peak) {
        const Machine machine{.cpu = true,
                              .peak_flops = peak,
                              .utilisation = cpu_utilisation(paper_job(), qwen_1_5b, peak, float32_peak)};
        return estimate_job(paper_job(), qwen_1_5b, machine).seconds;
    };
    EXPECT_NEAR(seconds(50e9, 50e9) / seconds(100e9, 100e9), 2.0, 1e-9);
    // Products that are eight times as fast: what is no product takes as long as before.
    EXPECT_GT(seconds(800e9, 100e9), seconds(100e9, 100e9) / 6);
    EXPECT_LT(seconds(800e9, 100e9), seconds(100e9, 100e9) / 2);
}

TEST(JobEstimate, small_models_are_further_from_a_cpus_peak) {
    const auto of = [](int64_t width) {
        ModelConfig c;
        c.layers = 10, c.query_heads = width / 32, c.key_value_heads = width / 64, c.head_dim = 32;
        c.hidden_size = width, c.intermediate_size = 3 * width, c.vocabulary_size = 700, c.tied_head = true;
        return cpu_utilisation(paper_job(), c, 1e12, 1e12);
    };
    EXPECT_NEAR(of(128), 0.5, 0.1) << "as the built-in teacher, whose runs took twice as long as products alone";
    EXPECT_GT(of(1024), 0.8);
    EXPECT_LT(of(1024), 1.0);
}

TEST(JobEstimate, automatic_precision_is_what_the_machine_is_fast_in) {
    Job job;
    EXPECT_EQ(compute_bytes(job, {.fast_bfloat16 = true}), 2);
    EXPECT_EQ(compute_bytes(job, {.fast_bfloat16 = false}), 4);
    job.precision = ComputePrecision::bfloat16;
    EXPECT_EQ(compute_bytes(job, {.fast_bfloat16 = false}), 2);
    job.precision = ComputePrecision::float32;
    EXPECT_EQ(compute_bytes(job, {.fast_bfloat16 = true}), 4);
}

TEST(GpuKinds, are_found_by_what_people_and_drivers_call_them) {
    ASSERT_NE(find_gpu_kind("NVIDIA H100 80GB HBM3"), nullptr);
    EXPECT_EQ(find_gpu_kind("h100")->bfloat16_peak, 989e12);
    EXPECT_LT(find_gpu_kind("a100")->bfloat16_peak, find_gpu_kind("h100")->bfloat16_peak);
    EXPECT_EQ(find_gpu_kind("Radeon"), nullptr);
}

/// Forward passes only: far below a distillation of every candidate, one of rounds far above one pass of all layers.
TEST(JobEstimate, candidates_that_are_not_distilled_cost_forward_passes) {
    Job job = paper_job();
    const double distilled = stage(estimate_job(job, qwen_1_5b, {}), "score").flops;
    job.select.rule = "recall_guided";
    job.score.tokens = 0;
    job.score.sequence_length = 512;
    const StageEstimate one = stage(estimate_job(job, qwen_1_5b, {.ranks = 1}), "score"),
                        eight = stage(estimate_job(job, qwen_1_5b, {.ranks = 8}), "score");
    EXPECT_LT(one.flops, distilled / 100);
    EXPECT_NEAR(one.seconds / eight.seconds, (28.0 + 4) / (4 + 4), 1e-9) << "teacher and aligned student: whole";
    const double tokens = 32 * 512 + 24 * 1024;  // of a candidate; half of its blocks are another one's
    EXPECT_GT(one.flops, 32 * tokens * 1.0 * 1.3e9);
    EXPECT_LT(one.flops, 32 * tokens * 2.0 * 1.6e9);
    job.select.rule = "removal_rounds";
    const auto flops = [&] { return stage(estimate_job(job, qwen_1_5b, {.ranks = 1}), "score").flops; };
    EXPECT_NEAR(flops() / one.flops, 409.0 / 32, 1e-9);
    job.select.rule = "swaps";
    job.select.options["budget"] = "7";
    EXPECT_NEAR(flops() / one.flops, (28 + 1 + 3 * 7 * 21 + 4.0) / 32, 1e-9) << "at most";
    job.select.rule = "recall_guided";
    job.select.options["budget"] = "auto";
    EXPECT_NEAR(flops() / one.flops, (28 + 29 + 4.0) / 32, 1e-9) << "and every number of kept layers";
}

/// The teacher runs twice more over the text, in windows, whatever the number of candidates.
TEST(JobEstimate, far_context_costs_two_passes_of_the_teacher) {
    Job job = paper_job();
    job.score.sequence_length = 512;
    const auto flops = [&](const char* rule, double weight) {
        job.select.rule = rule;
        job.score.far_context.weight = weight;
        return stage(estimate_job(job, qwen_1_5b, {.ranks = 1}), "score").flops;
    };
    const double more = flops("recall_guided", 1.0) - flops("recall_guided", 0.0), tokens = 32 * 512;
    EXPECT_GT(more, tokens * 2 * 2.6e9) << "blocks: 1.3e9 weights, 2 flop each";
    EXPECT_LT(more, tokens * 2 * 4.0e9);
    EXPECT_NEAR(flops("removal_rounds", 1.0) - flops("removal_rounds", 0.0), more, 1e-6 * more);
}

/// As many steps as asked for, each of the teacher's forward pass and of the gated model's, there and back.
TEST(JobEstimate, gates_cost_their_steps) {
    Job job = paper_job();
    job.select.rule = "joint_gates";
    job.score.sequence_length = 512;
    job.score.batch_sequences = 8;
    const auto flops = [&](int64_t steps) {
        job.score.gates.steps = steps;
        return stage(estimate_job(job, qwen_1_5b, {.ranks = 1}), "score").flops;
    };
    const double of_a_step = flops(2) - flops(1), tokens = 8 * (512 + 1024);
    EXPECT_NEAR(flops(11) - flops(1), 10 * of_a_step, 1e-6 * of_a_step);
    EXPECT_GT(of_a_step, tokens * 3 * 2.6e9) << "blocks: 1.3e9 weights, 2 flop each, three passes";
    EXPECT_LT(of_a_step, tokens * 5 * 4.0e9);
    job.score.gates.objective = GateObjective::hidden_states;
    const double of_questions = flops(2) - flops(1);
    EXPECT_GT(of_questions, 8 * 1024 * 3 * 2.6e9) << "their tokens alone, without the head";
    EXPECT_LT(of_questions, of_a_step * 0.7);
}

/// A candidate of a rule that removes layers has all softmax layers but one.
TEST(JobEstimate, candidates_have_the_softmax_layers_of_their_rule) {
    Job job = paper_job();
    const auto flops = [&](const char* rule) {
        job.select.rule = rule;
        return stage(estimate_job(job, qwen_1_5b, {}), "score").flops;
    };
    ModelConfig two_layers = qwen_1_5b;
    two_layers.layers = 2;  // one layer restored or one removed: the same candidates
    const double added = flops("kl_guided"), removed = flops("kl_guided_removal");
    EXPECT_GT(std::abs(removed / added - 1), 0.01);
    EXPECT_NEAR(flops("kl_guided_average") / (added + removed), 1.0, 0.02) << "the teacher's states are kept once";
    const auto of_two = [&](const char* rule) {
        job.select.rule = rule;
        return stage(estimate_job(job, two_layers, {}), "score");
    };
    EXPECT_DOUBLE_EQ(of_two("kl_guided").flops, of_two("kl_guided_removal").flops);
    EXPECT_EQ(of_two("kl_guided").sharding().memory.total(), of_two("kl_guided_removal").sharding().memory.total());
}

/// The memory of the worst phase, the time of all.
TEST(JobEstimate, of_phases_is_that_of_stages_one_after_another) {
    for (const char* name : {"align", "score", "distill"}) {
        const TrainingPhase phases[2] = {{524288000, 1024, 128, 4}, {104857600, 16384, 8, 1}};
        const auto estimate = [&](const std::vector<TrainingPhase>& some) {
            Job job = paper_job();
            for (TrainingJob* stage : {static_cast<TrainingJob*>(&job.align), static_cast<TrainingJob*>(&job.score),
                                       static_cast<TrainingJob*>(&job.distill)}) {
                stage->phases = some;
                stage->tokens = 0;
                for (const TrainingPhase& phase : some) stage->tokens += phase.tokens;
            }
            job.score.validation_sequences = 1;
            job.score.teacher_cache_gib = 0;
            return stage(estimate_job(job, qwen_1_5b, {}), name);
        };
        const StageEstimate small = estimate({phases[0]}), large = estimate({phases[1]}),
                            both = estimate({phases[0], phases[1]});
        EXPECT_EQ(both.steps, 4000 + 800) << name;
        EXPECT_EQ(both.sharding().memory.total(), large.sharding().memory.total()) << name;
        EXPECT_GT(large.sharding().memory.total(), small.sharding().memory.total()) << name;
        EXPECT_EQ(both.micro_batch_sequences, 1) << name;
        EXPECT_NEAR(both.seconds / (small.seconds + large.seconds), 1.0, name == std::string("score") ? 0.01 : 1e-12)
            << name << " (of score the held-out sequences are counted twice here)";
        EXPECT_GT(large.flops / large.tokens, 1.05 * small.flops / small.tokens) << name;
    }
}

TEST(JobEstimate, skipped_stages_are_absent) {
    Job job = paper_job();
    job.score.tokens = 0;
    job.evaluate.sequences = 0;
    const Estimate estimate = estimate_job(job, qwen_1_5b, {});
    ASSERT_EQ(estimate.stages.size(), 2u);
    EXPECT_EQ(estimate.stages[0].name, "align");
    EXPECT_EQ(estimate.stages[1].name, "distill");
    job.distill.tokens = 0;  // the hybrid is made all the same
    const StageEstimate untrained = stage(estimate_job(job, qwen_1_5b, {}), "distill");
    EXPECT_EQ(untrained.steps, 0);
    EXPECT_EQ(untrained.seconds, 0);
    EXPECT_GT(untrained.sharding().memory.total(), 0);
    job.finetune.tokens = 100000000;
    EXPECT_EQ(stage(estimate_job(job, qwen_1_5b, {}), "finetune").sharding().memory.teacher, 0);
}

TEST(JobEstimate, wrong_budget_is_an_error) {
    Job job = paper_job();
    job.select.options["budget"] = "x";
    EXPECT_TRUE(contains(error_text([&] { estimate_job(job, qwen_1_5b, {}); }), "select.budget"));
}

TEST(JobCheckTable, readable_numbers) {
    EXPECT_EQ(readable_bytes(3.09e9), "3.09 GB");
    EXPECT_EQ(readable_bytes(0), "0 B");
    EXPECT_EQ(readable_bytes(999.9e6), "1 GB");
    EXPECT_EQ(readable_count(1.5437e9), "1.54 G");
    EXPECT_EQ(readable_seconds(0.1), "1 s");
    EXPECT_EQ(readable_seconds(3599.6), "1 h 0 min");
    EXPECT_EQ(readable_seconds(90061), "1 d 1 h");
}

TEST(JobCheckTable, says_what_does_not_fit_and_why) {
    Job job = paper_job();
    const auto table = [&](const ModelConfig& shape, double memory, int64_t ranks) {
        const Machine machine{.ranks = ranks, .memory_per_rank = memory};
        return print_check(job, {}, estimate_job(job, shape, machine), machine);
    };
    EXPECT_TRUE(contains(table(qwen_1_5b, 80e9, 1), "Every stage fits the 80 GB of a rank."));
    EXPECT_TRUE(contains(table(qwen_7b, 80e9, 1), "Does not fit: distill"));
    EXPECT_TRUE(contains(table(qwen_7b, 80e9, 1), "Weights and optimizer alone need"));
    EXPECT_FALSE(contains(table(qwen_7b, 80e9, 32), "Does not fit: distill")) << "auto shards";
    job.sharding.strategy = ShardingSetting::none;
    EXPECT_TRUE(contains(table(qwen_7b, 80e9, 32), "Sharding optimizer would fit"));
    job.sharding.strategy = ShardingSetting::automatic;
    EXPECT_TRUE(contains(table(qwen_1_5b, 42e9, 1), "use sharding.activations: recompute"));
    job.distill.micro_batch_sequences = 4;
    EXPECT_TRUE(contains(table(qwen_1_5b, 60e9, 1), "Lower distill.micro_batch_sequences, now 4."));
}

TEST(JobCheckTable, lists_every_sharding_and_marks_what_auto_takes) {
    const Machine machine{.ranks = 64, .memory_per_rank = 80e9};
    const std::string table = print_check(paper_job(), {}, estimate_job(paper_job(), qwen_7b, machine), machine);
    for (const char* part : {"64 ranks on 8 nodes", "none ", "optimizer *", "hybrid ", "full "})
        EXPECT_TRUE(contains(table, part)) << part << "\n" << table;
}

TEST(JobCheckTable, prints_findings) {
    const std::string bad = print_check(Job(), {{"first", "second"}, {"by the way"}}, std::nullopt, {});
    EXPECT_TRUE(contains(bad, "Problems: this job cannot run\n  - first\n  - second\nNotes\n  - by the way\n"));
    EXPECT_FALSE(contains(bad, "No problems"));
    EXPECT_TRUE(contains(print_check(Job(), {}, std::nullopt, {}), "No problems found."));
}

TEST(JobEstimate, checkpoints_that_are_kept_take_disk_space) {
    Job job = paper_job();
    const double before = estimate_job(job, qwen_1_5b, {}).disk_bytes;
    const StageEstimate align = stage(estimate_job(job, qwen_1_5b, {}), "align"),
                        distill = stage(estimate_job(job, qwen_1_5b, {}), "distill");
    job.checkpoint.keep_every_steps = distill.steps / 2;
    ASSERT_LT(align.steps, job.checkpoint.keep_every_steps);
    EXPECT_NEAR(estimate_job(job, qwen_1_5b, {}).disk_bytes, before + 2 * distill.checkpoint_bytes, 1e3);
}

}  // namespace
}  // namespace amalgam
