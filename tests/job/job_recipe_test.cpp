// SPDX-License-Identifier: Apache-2.0
#include "job/job_recipe.h"

#include <gtest/gtest.h>

#include "error_text.h"
#include "job/job_reader.h"

namespace amalgam {
namespace {

TEST(JobRecipe, reference_sets_what_is_not_given) {
    const Job job = parse_job("recipe: reference\nalign: {optimizer: {weight_decay: 0.5}}\n", "job.yaml");
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_row);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::reference);
    EXPECT_EQ(job.align.optimizer.weight_decay, 0.5);  // given, so it wins
    EXPECT_EQ(job.align.optimizer.schedule, Schedule::cosine);
    EXPECT_EQ(job.align.optimizer.final_fraction, 0.0);
    EXPECT_EQ(job.align.optimizer.warmup_steps, 0);
    EXPECT_EQ(job.align.loss, AlignmentLoss::norm);
    EXPECT_EQ(job.align.batch_sequences, 96);
    EXPECT_EQ(job.select.rule, "kl_guided");
    EXPECT_EQ(job.align.optimizer.learning_rate, 1e-3);
    for (const OptimizerJob& optimizer : {job.score.optimizer, job.distill.optimizer}) {
        EXPECT_EQ(optimizer.weight_decay, 0.01);
        EXPECT_EQ(optimizer.schedule, Schedule::constant);
        EXPECT_EQ(optimizer.warmup_steps, 0);
        EXPECT_EQ(optimizer.learning_rate, 1e-4);
        EXPECT_EQ(optimizer.learning_rate_rest, 7e-6);
    }
}

TEST(JobRecipe, reference_by_override_and_after_other_keys) {
    const Job job =
        parse_job("student: {key_value_expansion: per_head}\nrecipe: amalgam\n", "job.yaml", {"recipe=reference"});
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_head);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::reference);
}

TEST(JobRecipe, amalgam_expands_per_head_with_the_teachers_eps) {
    const Job job = parse_job("", "job.yaml");
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_head);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::teacher);
    EXPECT_EQ(job.distill.optimizer.weight_decay, 0.0);
}

TEST(JobRecipe, variants_set_the_switches) {
    struct Expected {
        const char* variant;
        bool convolution, gate, norm, activation;
    };
    for (const Expected& e : {Expected{"gdn_v1", true, false, true, true}, Expected{"gdn_v2", false, false, true, true},
                              Expected{"gdn_v3", true, true, true, true}, Expected{"gdn_v4", false, true, true, true},
                              Expected{"gdn_v6", false, false, false, false}}) {
        const StudentJob student = parse_job("", "job.yaml", {std::string("student.variant=") + e.variant}).student;
        EXPECT_EQ(student.mixer, "gated_delta_net") << e.variant;
        EXPECT_EQ(student.options, (Options{{"short_convolution", e.convolution},
                                            {"output_gate", e.gate},
                                            {"output_norm", e.norm},
                                            {"activation", e.activation},
                                            {"rope", false}}))
            << e.variant;
    }
    const StudentJob student = parse_job("student: {variant: gla_v1}", "job.yaml").student;
    EXPECT_EQ(student.mixer, "gated_linear_attention");
    EXPECT_EQ(student.options, (Options{{"output_gate", true}, {"output_norm", true}}));
}

TEST(JobRecipe, options_of_other_mixers_are_refused_unless_they_say_no) {
    const std::string problem =
        error_text([] { parse_job("student:\n    variant: gla_v1\n    rope: true\n", "job.yaml"); });
    EXPECT_TRUE(contains(problem, "job.yaml:3: \"student.rope\" is \"true\"")) << problem;
    EXPECT_TRUE(contains(problem, "gated_linear_attention has no such option; only gated_delta_net has")) << problem;
    // As the resolved jobs of older runs have it.
    const Job job = parse_job("student: {variant: gla_v1, short_convolution: false, activation: false}", "job.yaml");
    EXPECT_EQ(job.student.options, (Options{{"output_gate", true}, {"output_norm", true}}));
}

TEST(JobRecipe, given_switches_win_over_the_variant) {
    const Job job = parse_job("student: {output_norm: true, variant: gdn_v6, output_gate: true}\n", "job.yaml");
    EXPECT_TRUE(option<bool>(job.student.options, "output_norm"));
    EXPECT_TRUE(option<bool>(job.student.options, "output_gate"));
    EXPECT_FALSE(option<bool>(job.student.options, "activation"));
}

TEST(JobRecipe, two_factor_variant_is_refused_with_the_reason) {
    const std::string problem = error_text([] { parse_job("student: {variant: gdn_v5}\n", "job.yaml"); });
    EXPECT_TRUE(contains(problem, "job.yaml:1: \"student.variant\" is \"gdn_v5\"")) << problem;
    EXPECT_TRUE(contains(problem, "two-factor key and value projections) is not offered")) << problem;
}

}  // namespace
}  // namespace amalgam
