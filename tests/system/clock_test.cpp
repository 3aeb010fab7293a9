// SPDX-License-Identifier: Apache-2.0
#include "system/clock.h"

#include <gtest/gtest.h>

#include <limits>
#include <regex>

namespace amalgam {
namespace {

TEST(Clock, durations_are_written_as_people_do) {
    EXPECT_EQ(format_duration(0), "0:00");
    EXPECT_EQ(format_duration(125), "2:05");
    EXPECT_EQ(format_duration(59.6), "1:00");
    EXPECT_EQ(format_duration(3599), "59:59");
    EXPECT_EQ(format_duration(3725), "1:02:05");
    EXPECT_EQ(format_duration(360000), "100:00:00");
    EXPECT_EQ(format_duration(-3), "0:00");
    EXPECT_EQ(format_duration(std::numeric_limits<double>::infinity()), "unknown");
}

TEST(Clock, durations_are_read) {
    EXPECT_EQ(parse_duration("01:30:00"), 5400);
    EXPECT_EQ(parse_duration("100:00:01"), 360001);
    EXPECT_EQ(parse_duration("90:00"), 5400);
    EXPECT_EQ(parse_duration("0:05"), 5);
    EXPECT_EQ(parse_duration("90"), 90);
    EXPECT_EQ(parse_duration("1.5"), 1.5);
}

TEST(Clock, other_durations_are_refused) {
    for (const char* text : {"", ":", "1:", ":30", "1:60", "1:60:00", "1:00:00:00", "-5", "1h", "1.5:00", "1.", "1e3",
                             " 5", "9999999999999999"})
        EXPECT_EQ(parse_duration(text), std::nullopt) << text;
}

TEST(Clock, reading_inverts_writing) {
    for (int seconds : {0, 1, 59, 60, 3599, 3600, 86399, 1000000})
        EXPECT_EQ(parse_duration(format_duration(seconds)), seconds);
}

TEST(Clock, date_is_iso_8601_with_zone) {
    const std::regex pattern(R"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d\d:\d\d)");
    EXPECT_TRUE(std::regex_match(date_now(), pattern)) << date_now();
}

TEST(Clock, stopwatch_does_not_run_backwards) {
    const Stopwatch watch;
    const double first = watch.seconds();
    EXPECT_GE(first, 0);
    EXPECT_GE(watch.seconds(), first);
}

}  // namespace
}  // namespace amalgam
