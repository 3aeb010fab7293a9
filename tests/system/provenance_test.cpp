// SPDX-License-Identifier: Apache-2.0
#include "system/provenance.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <regex>

namespace amalgam {
namespace {

TEST(Provenance, command_line_is_quoted_for_a_shell) {
    const char* argv[] = {"amalgam", "run", "job.yaml", "--set", "name=two words", "it's", ""};
    set_command_line(7, argv);
    EXPECT_EQ(provenance().command_line, R"(amalgam run job.yaml --set 'name=two words' 'it'\''s' '')");
}

TEST(Provenance, libraries_are_named_once) {
    report_library("Testlib 1.2");
    report_library("Testlib 1.2");
    const std::string libraries = provenance().libraries;
    const size_t first = libraries.find("Testlib 1.2");
    ASSERT_NE(first, std::string::npos) << libraries;
    EXPECT_EQ(libraries.find("Testlib 1.2", first + 1), std::string::npos) << libraries;
    EXPECT_NE(libraries.find("Boost 1."), std::string::npos) << libraries;
}

TEST(Provenance, job_of_the_scheduler) {
    for (const char* name : {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID"}) unsetenv(name);
    EXPECT_EQ(provenance().job_id, "");
    setenv("PBS_JOBID", "42.server", 1);
    EXPECT_EQ(provenance().job_id, "42.server");
    unsetenv("PBS_JOBID");
}

TEST(Provenance, commit_is_a_hash_or_unknown) {
    const std::regex pattern("unknown|[0-9a-f]{40}(-dirty)?");
    EXPECT_TRUE(std::regex_match(provenance().git_sha, pattern)) << provenance().git_sha;
    EXPECT_EQ(version(), "amalgam " + provenance().software_version + " (" + provenance().git_sha + ")");
}

TEST(Provenance, host_and_date_are_known) {
    EXPECT_EQ(provenance().machine, host_name());
    EXPECT_FALSE(host_name().empty());
    EXPECT_EQ(provenance().date.size(), 25u);
}

}  // namespace
}  // namespace amalgam
