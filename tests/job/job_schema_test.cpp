// SPDX-License-Identifier: Apache-2.0
#include "job/job_schema.h"

#include <gtest/gtest.h>

#include <set>

namespace amalgam {
namespace {

TEST(JobSchema, PathsAndMembersAreDistinct) {
    Job job;
    std::set<std::string> paths;
    std::set<const void*> members;
    for (const JobKey& key : job_schema()) {
        EXPECT_TRUE(paths.insert(key.path).second) << key.path;
        const void* member =
            std::visit([](auto* pointer) { return static_cast<const void*>(pointer); }, key.member(job));
        EXPECT_TRUE(members.insert(member).second) << key.path << " shares its member with another key";
    }
}

TEST(JobSchema, EveryKeyIsDescribedAndInADescribedSection) {
    for (const JobKey& key : job_schema()) {
        EXPECT_FALSE(key.description.empty()) << key.path;
        const size_t dot = key.path.rfind('.');
        if (dot == std::string::npos) continue;
        EXPECT_NE(find_section(key.path.substr(0, dot)), nullptr) << key.path;
    }
    for (const JobSection& section : job_sections()) EXPECT_FALSE(section.description.empty()) << section.path;
}

TEST(JobSchema, KeysOfASectionStandTogether) {
    std::set<std::string> seen;
    std::string current;
    for (const JobKey& key : job_schema()) {
        const size_t dot = key.path.rfind('.');
        const std::string section = dot == std::string::npos ? "" : key.path.substr(0, dot);
        if (section == current) continue;
        EXPECT_TRUE(seen.insert(section).second) << section << " is split";
        current = section;
    }
}

TEST(JobSchema, NoKeyIsMissing) {
    // Bytes of Job minus bytes of all members of the schema: only the temperature that finetune does not use, and
    // padding. A member added to job.h without a key would be unreachable from a job file.
    Job job;
    size_t covered = 0;
    for (const JobKey& key : job_schema())
        covered += std::visit([](auto* pointer) { return sizeof(*pointer); }, key.member(job));
    const size_t groups_of_booleans = 4;  // each followed by less than 8 bytes of padding
    EXPECT_LT(sizeof(Job) - covered - sizeof(job.finetune.temperature), 8 * groups_of_booleans);
}

TEST(JobSchema, EditDistance) {
    EXPECT_EQ(edit_distance("", "abc"), 3);
    EXPECT_EQ(edit_distance("tokens", "tokens"), 0);
    EXPECT_EQ(edit_distance("token", "tokens"), 1);
    EXPECT_EQ(edit_distance("algin", "align"), 1);  // neighbours swapped
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(JobSchema, NearestKey) {
    EXPECT_EQ(nearest_key("teacher_path").path, "teacher.path");
    EXPECT_EQ(nearest_key("distill.optimiser").path, "distill.optimizer");
    EXPECT_EQ(nearest_key("align.optimizer.lr_schedule").path, "align.optimizer.schedule");
    EXPECT_EQ(nearest_key("score.budget").path, "select.budget");
    EXPECT_TRUE(nearest_key("score.budget").close);
    EXPECT_FALSE(nearest_key("favourite_colour").close);
}

TEST(JobSchema, RangesDescribeThemselves) {
    EXPECT_EQ((Range{.low = 1}).describe(), "at least 1");
    EXPECT_EQ((Range{.low = 0, .high = 1, .high_excluded = true}).describe(), "at least 0 and below 1");
    EXPECT_EQ(Range{}.describe(), "");
    EXPECT_FALSE((Range{.low = 0, .low_excluded = true}).contains(0));
    EXPECT_TRUE((Range{.low = 0, .high = 1}).contains(1));
}

}  // namespace
}  // namespace amalgam
