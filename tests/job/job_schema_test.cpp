// SPDX-License-Identifier: Apache-2.0
#include "job/job_schema.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>

namespace amalgam {
namespace {

/// The bytes of a member.
struct Bytes {
    const char* begin;
    const char* end;
};

struct BytesOf {
    template <class Value>
    Bytes operator()(const Value* member) const {
        const auto* begin = reinterpret_cast<const char*>(member);
        return {begin, begin + sizeof(Value)};
    }
    Bytes operator()(const EnumMember& member) const {
        const auto* begin = static_cast<const char*>(member.address());
        return {begin, begin + member.size()};
    }
};

TEST(JobSchema, paths_and_members_are_distinct) {
    Job job;
    std::set<std::string> paths;
    std::set<const void*> members;
    for (const JobKey& key : job_schema()) {
        EXPECT_TRUE(paths.insert(key.path).second) << key.path;
        const Bytes member = std::visit(BytesOf(), key.member(job));
        EXPECT_TRUE(members.insert(member.begin).second) << key.path << " shares its member with another key";
    }
}

TEST(JobSchema, every_key_is_described_and_in_a_described_section) {
    for (const JobKey& key : job_schema()) {
        EXPECT_FALSE(key.description.empty()) << key.path;
        const size_t dot = key.path.rfind('.');
        if (dot == std::string::npos) continue;
        EXPECT_NE(find_section(key.path.substr(0, dot)), nullptr) << key.path;
    }
    for (const JobSection& section : job_sections()) EXPECT_FALSE(section.description.empty()) << section.path;
}

TEST(JobSchema, keys_of_a_section_stand_together) {
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

TEST(JobSchema, no_key_is_missing) {
    // A member added to job.h without a key would be unreachable from a job file. Between the members of the schema a
    // Job has only padding, which is less than 8 bytes, and the two of distillation that finetune does not use.
    Job job;
    std::map<const char*, const char*> members;
    const auto* last = reinterpret_cast<const char*>(&job) + sizeof(Job);
    const auto add = [&](const Bytes& member) {
        const bool in_job =
            std::less_equal<>()(reinterpret_cast<const char*>(&job), member.begin) && std::less<>()(member.begin, last);
        if (in_job) members[member.begin] = member.end;  // values of options lie elsewhere
    };
    for (const JobKey& key : job_schema()) add(std::visit(BytesOf(), key.member(job)));
    add(BytesOf()(&job.student.options));
    add(BytesOf()(&job.select.options));
    const auto holes = [&] {
        int count = 0;
        const char* end = reinterpret_cast<const char*>(&job);
        for (const auto& [begin, its_end] : members) {
            if (begin - end >= 8) ++count;
            end = its_end;
        }
        return count + (last - end >= 8 ? 1 : 0);
    };
    EXPECT_EQ(holes(), 1);
    add(BytesOf()(&job.finetune.temperature));
    add(BytesOf()(&job.finetune.hidden_state_weight));
    EXPECT_EQ(holes(), 0);
    members.erase(reinterpret_cast<const char*>(&job.seed));
    EXPECT_EQ(holes(), 1);
}

TEST(JobSchema, enumerations_offer_the_names_of_their_values_and_nothing_else) {
    Job job;
    const JobKey& schedule = *find_key("align.optimizer.schedule");
    EXPECT_EQ(schedule.choices, (std::vector<std::string>{"constant", "cosine", "linear", "warmup_stable_decay"}));
    const auto member = std::get<EnumMember>(schedule.member(job));
    EXPECT_EQ(member.name(), "cosine");
    EXPECT_TRUE(member.assign("linear"));
    EXPECT_EQ(job.align.optimizer.schedule, Schedule::linear);
    EXPECT_FALSE(member.assign("Linear"));
    EXPECT_EQ(job.align.optimizer.schedule, Schedule::linear);
}

/// Old job files and the resolved jobs of older runs must still read.
TEST(JobSchema, keys_of_the_selection_rules) {
    std::vector<std::string> paths;
    for (const JobKey& key : job_schema())
        if (key.path.starts_with("select.")) paths.push_back(key.path);
    EXPECT_EQ(paths, (std::vector<std::string>{"select.rule", "select.budget", "select.recall_at_least",
                                               "select.kl_at_most", "select.race_errors", "select.swap_rounds",
                                               "select.phase", "select.seed", "select.layers"}));
    EXPECT_EQ(find_key("select.rule")->allowed(),
              "one of recall_guided, kl_guided, kl_guided_removal, kl_guided_average, hidden_state_addition, "
              "hidden_state_removal, aligned_addition, perplexity, smart, halo, ablation, ablation_accuracy, "
              "removal_rounds, addition_rounds, joint_gates, swaps, uniform, random, explicit, all_linear");
    EXPECT_EQ(find_key("select.budget")->type(), "a text");
    EXPECT_EQ(find_key("select.budget")->unit, "layers");
    EXPECT_EQ(find_key("select.phase")->allowed(), "at least 0");
    EXPECT_EQ(find_key("select.layers")->type(), "a list of integers");
}

TEST(JobSchema, edit_distance) {
    EXPECT_EQ(edit_distance("", "abc"), 3);
    EXPECT_EQ(edit_distance("tokens", "tokens"), 0);
    EXPECT_EQ(edit_distance("token", "tokens"), 1);
    EXPECT_EQ(edit_distance("algin", "align"), 1);  // neighbours swapped
    EXPECT_EQ(edit_distance("kitten", "sitting"), 3);
}

TEST(JobSchema, nearest_key) {
    EXPECT_EQ(nearest_key("teacher_path").path, "teacher.path");
    EXPECT_EQ(nearest_key("distill.optimiser").path, "distill.optimizer");
    EXPECT_EQ(nearest_key("align.optimizer.lr_schedule").path, "align.optimizer.schedule");
    EXPECT_EQ(nearest_key("score.budget").path, "select.budget");
    EXPECT_TRUE(nearest_key("score.budget").close);
    EXPECT_FALSE(nearest_key("favourite_colour").close);
}

TEST(JobSchema, ranges_describe_themselves) {
    EXPECT_EQ((Range{.low = 1}).describe(), "at least 1");
    EXPECT_EQ((Range{.low = 0, .high = 1, .high_excluded = true}).describe(), "at least 0 and below 1");
    EXPECT_EQ(Range{}.describe(), "");
    EXPECT_FALSE((Range{.low = 0, .low_excluded = true}).contains(0));
    EXPECT_TRUE((Range{.low = 0, .high = 1}).contains(1));
}

}  // namespace
}  // namespace amalgam
