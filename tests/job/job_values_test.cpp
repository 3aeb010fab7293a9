// SPDX-License-Identifier: Apache-2.0
#include "job/job_values.h"

#include <gtest/gtest.h>

#include "error_text.h"
#include "job/training_plan.h"

namespace amalgam {
namespace {

TEST(JobValues, steps_of_the_paper) {
    TrainingJob align;
    align.tokens = 100000000;
    align.sequence_length = 512;
    align.batch_sequences = 96;
    EXPECT_EQ(training_steps(align), 2034);
    TrainingJob distill;
    distill.tokens = 600000000;
    distill.sequence_length = 4096;
    distill.batch_sequences = 32;
    EXPECT_EQ(training_steps(distill), 4577);
}

TEST(JobValues, kept_layers_are_those_of_the_rule) {
    SelectJob select;
    EXPECT_EQ(kept_layers(select, 28), 7);
    select.options["budget"] = "not read";
    select.rule = "all_linear";
    EXPECT_EQ(kept_layers(select, 28), 0);
    select.rule = "explicit";
    select.options["layers"] = std::vector<int64_t>{1, 5, 9};
    EXPECT_EQ(kept_layers(select, 28), 3);
    select.rule = "best";
    EXPECT_TRUE(contains(error_text([&] { kept_layers(select, 28); }), "\"best\" is not known"));
}

TEST(JobValues, peak_flops) {
    EXPECT_EQ(given_peak_flops(""), 0.0);
    EXPECT_EQ(given_peak_flops("auto"), std::nullopt);
    EXPECT_EQ(given_peak_flops("989e12"), 989e12);
    EXPECT_EQ(given_peak_flops("1500000000"), 1.5e9);
    for (const std::string wrong : {"0", "-1e12", "fast", "1e12 flop/s", "inf", "nan", "989 TF"})
        EXPECT_TRUE(contains(error_text([&] { given_peak_flops(wrong); }), "peak_flops is \"" + wrong + "\"")) << wrong;
}

TEST(JobValues, walltime) {
    EXPECT_EQ(walltime_seconds(""), 0);
    EXPECT_EQ(walltime_seconds("11:45:00"), 42300);
    EXPECT_EQ(walltime_seconds("0:00:05"), 5);
    EXPECT_EQ(walltime_seconds("167:59:59"), 604799);
    for (const std::string wrong : {"11:45", "1:60:00", "1:00:60", "a:b:c", "-1:00:00", "1:00:00:00", "12", "1: 0:0"})
        EXPECT_TRUE(contains(error_text([&] { walltime_seconds(wrong); }), "hours:minutes:seconds")) << wrong;
    EXPECT_TRUE(contains(error_text([] { walltime_seconds("0:00:00"); }), "stop at once"));
}

TEST(JobValues, deadlines) {
    EXPECT_EQ(deadline_seconds("deadlines.step", ""), 0.0);
    EXPECT_EQ(deadline_seconds("deadlines.step", "0"), 0.0);
    EXPECT_EQ(deadline_seconds("deadlines.step", "90"), 90.0);
    EXPECT_EQ(deadline_seconds("deadlines.step", "1.5"), 1.5);
    EXPECT_EQ(deadline_seconds("deadlines.step", "10:00"), 600.0);
    EXPECT_EQ(deadline_seconds("deadlines.step", "01:00:10"), 3610.0);
    for (const std::string wrong : {"soon", "1:60", "1:2:3:4", "-1"})
        EXPECT_EQ(error_text([&] { deadline_seconds("deadlines.step", wrong); }),
                  "deadlines.step is \"" + wrong +
                      "\" (after how long is a rank stuck?) write hours:minutes:seconds, such as 00:10:00, or 0 for no "
                      "deadline");
}

}  // namespace
}  // namespace amalgam
