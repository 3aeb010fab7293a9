// SPDX-License-Identifier: Apache-2.0
#include "job/job_recipe.h"

#include <gtest/gtest.h>

#include "error_text.h"
#include "job/job_reader.h"

namespace amalgam {
namespace {

TEST(JobRecipe, ReferenceSetsWhatIsNotGiven) {
    const Job job = parse_job("recipe: reference\nalign: {optimizer: {weight_decay: 0.5}}\n", "job.yaml");
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_row);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::reference);
    EXPECT_EQ(job.align.optimizer.weight_decay, 0.5);  // given, so it wins
    EXPECT_EQ(job.align.optimizer.schedule, Schedule::cosine);
    EXPECT_EQ(job.align.optimizer.final_fraction, 0.0);
    EXPECT_EQ(job.align.optimizer.warmup_steps, 0);
    EXPECT_EQ(job.align.loss, AlignmentLoss::norm);
    for (const OptimizerJob& optimizer : {job.score.optimizer, job.distill.optimizer}) {
        EXPECT_EQ(optimizer.weight_decay, 0.01);
        EXPECT_EQ(optimizer.schedule, Schedule::constant);
        EXPECT_EQ(optimizer.warmup_steps, 0);
        EXPECT_EQ(optimizer.learning_rate, 1e-4);
        EXPECT_EQ(optimizer.learning_rate_rest, 7e-6);
    }
}

TEST(JobRecipe, ReferenceByOverrideAndAfterOtherKeys) {
    const Job job =
        parse_job("student: {key_value_expansion: per_head}\nrecipe: amalgam\n", "job.yaml", {"recipe=reference"});
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_head);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::reference);
}

TEST(JobRecipe, AmalgamExpandsPerHeadWithTheTeachersEps) {
    const Job job = parse_job("", "job.yaml");
    EXPECT_EQ(job.student.key_value_expansion, KeyValueExpansion::per_head);
    EXPECT_EQ(job.student.output_norm_eps, OutputNormEps::teacher);
    EXPECT_EQ(job.distill.optimizer.weight_decay, 0.0);
}

TEST(JobRecipe, VariantsSetTheSwitches) {
    struct Expected {
        const char* variant;
        bool convolution, gate, norm, activation;
        const char* mixer = "gated_delta_net";
    };
    for (const Expected& e : {Expected{"gdn_v1", true, false, true, true}, Expected{"gdn_v2", false, false, true, true},
                              Expected{"gdn_v3", true, true, true, true}, Expected{"gdn_v4", false, true, true, true},
                              Expected{"gdn_v6", false, false, false, false},
                              Expected{"gla_v1", false, true, true, false, "gated_linear_attention"}}) {
        const StudentJob student = parse_job("", "job.yaml", {std::string("student.variant=") + e.variant}).student;
        EXPECT_EQ(student.mixer, e.mixer) << e.variant;
        EXPECT_EQ(student.short_convolution, e.convolution) << e.variant;
        EXPECT_EQ(student.output_gate, e.gate) << e.variant;
        EXPECT_EQ(student.output_norm, e.norm) << e.variant;
        EXPECT_EQ(student.activation, e.activation) << e.variant;
    }
}

TEST(JobRecipe, GivenSwitchesWinOverTheVariant) {
    const Job job = parse_job("student: {output_norm: true, variant: gdn_v6, output_gate: true}\n", "job.yaml");
    EXPECT_TRUE(job.student.output_norm);
    EXPECT_TRUE(job.student.output_gate);
    EXPECT_FALSE(job.student.activation);
}

TEST(JobRecipe, TwoFactorVariantIsRefusedWithTheReason) {
    const std::string problem = error_text([] { parse_job("student: {variant: gdn_v5}\n", "job.yaml"); });
    EXPECT_TRUE(contains(problem, "job.yaml:1: \"student.variant\" is \"gdn_v5\"")) << problem;
    EXPECT_TRUE(contains(problem, "two-factor key and value projections) is not offered")) << problem;
}

}  // namespace
}  // namespace amalgam
