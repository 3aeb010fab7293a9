// SPDX-License-Identifier: Apache-2.0
// The job files that come with the program are read and checked, so that they do not rot.
#include <gtest/gtest.h>

#include <filesystem>

#include "job/job_check.h"
#include "job/job_reader.h"
#include "job/job_values.h"
#include "job/training_plan.h"

namespace amalgam {
namespace {

Job shipped(const std::string& name) {
    return read_job(std::filesystem::path(AMALGAM_JOBS_FOLDER) / (name + ".yaml"));
}

TEST(JobFiles, all_are_read_and_have_no_problem_but_missing_inputs) {
    int64_t files = 0;
    for (const auto& entry : std::filesystem::directory_iterator(AMALGAM_JOBS_FOLDER)) {
        if (entry.path().extension() != ".yaml") continue;
        ++files;
        const Job job = read_job(entry.path());
        EXPECT_EQ(job.name, entry.path().stem().string());
        for (const std::string& problem : check_job(job, 2, std::nullopt, std::nullopt).problems)
            EXPECT_TRUE(problem.starts_with("teacher.path") || problem.starts_with("data."))
                << entry.path() << ": " << problem;
    }
    EXPECT_GE(files, 6);
}

TEST(JobFiles, paper_jobs_have_the_papers_numbers) {
    for (const std::string name : {"qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b", "llama-3.2-3b"}) {
        const Job job = shipped(name);
        EXPECT_EQ(training_steps(job.align), 2034) << name;
        EXPECT_EQ(training_steps(job.distill), 4577) << name;
        EXPECT_EQ(job.align.optimizer.learning_rate, 1e-3) << name;
        EXPECT_EQ(job.align.optimizer.schedule, Schedule::cosine) << name;
        EXPECT_EQ(job.align.optimizer.final_fraction, 0.0) << name;
        EXPECT_EQ(warmup_steps(job.align.optimizer, 2034), 0) << name;
        for (const TrainingJob& stage :
             {static_cast<const TrainingJob&>(job.score), static_cast<const TrainingJob&>(job.distill)}) {
            EXPECT_EQ(stage.sequence_length, 4096) << name;
            EXPECT_EQ(stage.batch_sequences, 32) << name;
            EXPECT_EQ(stage.optimizer.beta1, 0.9) << name;
            EXPECT_EQ(stage.optimizer.beta2, 0.95) << name;
            EXPECT_EQ(stage.optimizer.learning_rate, 1e-4) << name;
            EXPECT_EQ(stage.optimizer.learning_rate_rest, 7e-6) << name;
            EXPECT_EQ(stage.optimizer.gradient_clip, 1.0) << name;
            EXPECT_EQ(stage.optimizer.schedule, Schedule::constant) << name;
            EXPECT_EQ(warmup_steps(stage.optimizer, 4577), 0) << name;
        }
        EXPECT_EQ(job.score.tokens, 200000000) << name;
        EXPECT_EQ(option<std::string>(job.select.options, "budget"), "25%") << name;
    }
}

}  // namespace
}  // namespace amalgam
