// SPDX-License-Identifier: Apache-2.0
#include "job/job_writer.h"

#include <gtest/gtest.h>

#include "job/job_reader.h"
#include "job/job_schema.h"

namespace amalgam {
namespace {

/// Gives every member a value that is allowed and is not its default.
struct Change {
    const JobKey& key;
    void operator()(std::string* value) const {
        if (key.choices.empty()) {
            *value = "changed: \"" + *value + "\\ # 1\"";
            return;
        }
        for (const std::string& choice : key.choices)
            if (choice != *value) {
                *value = choice;
                return;
            }
    }
    void operator()(const EnumMember& value) const {
        const std::string before = value.name();
        for (const std::string& choice : key.choices)
            if (choice != before) {
                ASSERT_TRUE(value.assign(choice)) << key.path;
                return;
            }
    }
    void operator()(int64_t* value) const { *value += 3; }
    void operator()(double* value) const { *value = key.range.high == 1 ? 0.123456789012345 : *value + 1.0 / 3; }
    void operator()(std::optional<double>* value) const { *value = 1.0 / 3; }
    void operator()(bool* value) const { *value = !*value; }
    void operator()(std::vector<int64_t>* value) const { *value = {3, 1, 4}; }
    void operator()(std::vector<TrainingPhase>* value) const { *value = {{5, 4, 3, 2}, {6, 7, 8, 9}}; }
    void operator()(std::vector<std::string>* value) const { value->assign(key.choices.rbegin(), key.choices.rend()); }
};

TEST(JobWriter, defaults_read_back) {
    EXPECT_EQ(to_yaml(parse_job(to_yaml(Job()), "job.yaml")), to_yaml(Job()));
}

TEST(JobWriter, commented_defaults_read_back_to_the_defaults) {
    const std::string defaults = commented_defaults();
    EXPECT_EQ(to_yaml(parse_job(defaults, "defaults")), to_yaml(Job()));
    for (const JobKey& key : job_schema()) EXPECT_NE(defaults.find(key.description), std::string::npos) << key.path;
}

TEST(JobWriter, every_changed_value_reads_back) {
    Job job;
    for (const JobKey& key : job_schema()) std::visit(Change{key}, key.member(job));
    job.student.mixer = Job().student.mixer;  // whose options were changed; those of others it has not
    std::erase_if(job.student.options,
                  [](const auto& option) { return !Job().student.options.contains(option.first); });
    ASSERT_EQ(job.recipe, Recipe::reference);
    ASSERT_EQ(job.student.variant, "gdn_v1");
    const std::string yaml = to_yaml(job);
    const Job back = parse_job(yaml, "job.yaml");
    EXPECT_EQ(to_yaml(back), yaml);
    EXPECT_EQ(back.name, job.name);
    EXPECT_EQ(back.distill.temperature, job.distill.temperature);
    EXPECT_EQ(back.align.optimizer.beta1, 0.123456789012345);
    EXPECT_EQ(back.select.options, job.select.options);
    EXPECT_EQ(back.student.options, job.student.options);
}

TEST(JobWriter, resolved_reference_job_stays_what_it_is) {
    const Job job = parse_job("recipe: reference\nstudent: {variant: gdn_v6, activation: true}\n", "job.yaml");
    EXPECT_EQ(to_yaml(parse_job(to_yaml(job), "again")), to_yaml(job));
    EXPECT_TRUE(option<bool>(parse_job(to_yaml(job), "again").student.options, "activation"));
}

TEST(JobWriter, a_job_has_the_options_of_its_mixer_only) {
    const Job job = parse_job("student: {variant: gla_v1}", "job.yaml");
    EXPECT_EQ(to_yaml(job).find("rope"), std::string::npos);
    EXPECT_NE(to_yaml(Job()).find("rope: false"), std::string::npos);
    EXPECT_EQ(to_yaml(parse_job(to_yaml(job), "again")), to_yaml(job));
}

TEST(JobWriter, words_of_yaml_are_quoted) {
    for (const std::string name :
         {"true", "No", "null", "", "1", "1e5", "~", "a b", "a:", "- x", "ö", "tab\tline\nend"}) {
        Job job;
        job.name = name;
        EXPECT_EQ(parse_job(to_yaml(job), "job.yaml").name, name);
    }
    EXPECT_NE(to_yaml(Job()).find("budget: \"25%\"\n"), std::string::npos);
}

TEST(JobWriter, numbers_have_a_point_for_other_readers) {
    EXPECT_NE(to_yaml(Job()).find("epsilon: 1.0e-08\n"), std::string::npos);
    EXPECT_NE(to_yaml(Job()).find("temperature: 1.0\n"), std::string::npos);
}

}  // namespace
}  // namespace amalgam
