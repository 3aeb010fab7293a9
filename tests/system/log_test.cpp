// SPDX-License-Identifier: Apache-2.0
#include "system/log.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>

#include "system/error.h"

namespace amalgam {
namespace {

class Log : public testing::Test {
  protected:
    ~Log() override {
        unsetenv("AMALGAM_LOG");
        start_logging(0, 1, "here");
    }

    template <class Action>
    static std::string printed_by(const Action& action) {
        testing::internal::CaptureStderr();
        action();
        return testing::internal::GetCapturedStderr();
    }
};

TEST_F(Log, lines_carry_time_and_level) {
    start_logging(0, 1, "here");
    const std::string line = printed_by([] { info("teacher loaded"); });
    EXPECT_TRUE(std::regex_match(line, std::regex("\\[\\d\\d:\\d\\d:\\d\\d\\] info teacher loaded\n"))) << line;
}

TEST_F(Log, what_all_ranks_say_is_printed_by_rank_0_only) {
    start_logging(3, 8, "node7.cluster.org");
    EXPECT_EQ(printed_by([] { warn("same everywhere"); }), "");
    start_logging(0, 8, "node7");
    EXPECT_NE(printed_by([] { warn("same everywhere"); }).find("warning same everywhere\n"), std::string::npos);
}

TEST_F(Log, what_one_rank_says_names_it) {
    start_logging(3, 8, "node7.cluster.org");
    const std::string line = printed_by([] { log_rank(LogLevel::error, "cannot read"); });
    EXPECT_NE(line.find("error [rank 3 of 8, node7] cannot read\n"), std::string::npos) << line;
}

TEST_F(Log, level_comes_from_the_environment) {
    setenv("AMALGAM_LOG", "warning", 1);
    start_logging(0, 1, "here");
    EXPECT_EQ(printed_by([] { info("quiet"); }), "");
    EXPECT_NE(printed_by([] { warn("loud"); }), "");
    setenv("AMALGAM_LOG", "debug", 1);
    start_logging(0, 1, "here");
    EXPECT_NE(printed_by([] { log_all(LogLevel::debug, "details"); }), "");
}

TEST_F(Log, unknown_level_is_told) {
    setenv("AMALGAM_LOG", "verbose", 1);
    const std::string line = printed_by([] { start_logging(0, 1, "here"); });
    EXPECT_NE(line.find("AMALGAM_LOG is \"verbose\""), std::string::npos) << line;
}

TEST_F(Log, file_gets_the_lines_from_then_on) {
    const std::string path = testing::TempDir() + "amalgam_log_test.txt";
    std::filesystem::remove(path);
    printed_by([&] {
        start_logging(0, 1, "here");
        info("before");
        log_to_file(path);
        info("after");
    });
    std::ifstream stream(path);
    std::ostringstream content;
    content << stream.rdbuf();
    EXPECT_EQ(content.str().find("before"), std::string::npos);
    EXPECT_NE(content.str().find("info after\n"), std::string::npos);
    std::filesystem::remove(path);
}

TEST_F(Log, file_that_cannot_be_opened_is_a_storage_error) {
    try {
        log_to_file("/no/such/folder/log.txt");
        FAIL() << "no exception";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::storage);
        EXPECT_NE(std::string(error.what()).find("/no/such/folder/log.txt"), std::string::npos);
    }
}

}  // namespace
}  // namespace amalgam
