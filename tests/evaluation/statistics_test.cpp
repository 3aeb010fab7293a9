// SPDX-License-Identifier: Apache-2.0
#include "evaluation/statistics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace amalgam {
namespace {

TEST(Statistics, mean_and_standard_error) {
    const std::vector<double> values = {2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0};  // squares of deviations sum to 32
    const auto found = mean_and_error(values);
    EXPECT_DOUBLE_EQ(found.mean, 5.0);
    EXPECT_DOUBLE_EQ(found.standard_error, std::sqrt(32.0 / 7.0 / 8.0));
}

TEST(Statistics, few_values) {
    EXPECT_EQ(mean_and_error(std::vector<double>{}).mean, 0.0);
    EXPECT_EQ(mean_and_error(std::vector<double>{3.5}).mean, 3.5);
    EXPECT_TRUE(std::isnan(mean_and_error(std::vector<double>{3.5}).standard_error)) << "not known, and not 0";
    EXPECT_TRUE(std::isnan(mean_and_error(std::vector<PartOfMean>{{3.5, 2}}).standard_error));
    EXPECT_EQ(plus_minus(mean_and_error(std::vector<double>{3.5}).standard_error), "");
    EXPECT_EQ(plus_minus(mean_and_error(std::vector<double>{1.0, 3.0}).standard_error, 2), " +- 1.00");
    EXPECT_DOUBLE_EQ(mean_and_error(std::vector<double>{1.0, 3.0}).standard_error, 1.0);
}

/// Values near each other far from zero: the naive sum of squares would lose all digits.
TEST(Statistics, small_differences_of_large_values) {
    const std::vector<double> values = {1e9 + 1.0, 1e9 + 2.0, 1e9 + 3.0};
    EXPECT_NEAR(mean_and_error(values).standard_error, 1.0 / std::sqrt(3.0), 1e-6);
}

TEST(Statistics, parts_of_different_sizes_count_by_their_values) {
    const auto found = mean_and_error(std::vector<PartOfMean>{{4.0, 4}, {6.0, 1}, {0.0, 0}});  // mean 2
    EXPECT_DOUBLE_EQ(found.mean, 2.0);
    EXPECT_DOUBLE_EQ(found.standard_error, std::sqrt((16.0 + 16.0) * 3.0 / 2.0) / 5.0);
    const auto alike = mean_and_error(std::vector<PartOfMean>{{4.0, 4}, {8.0, 4}, {28.0, 4}}),
               means = mean_and_error(std::vector<double>{1.0, 2.0, 7.0});
    EXPECT_DOUBLE_EQ(alike.mean, means.mean);
    EXPECT_DOUBLE_EQ(alike.standard_error, means.standard_error);
    EXPECT_TRUE(std::isnan(mean_and_error(std::vector<PartOfMean>{{0.0, 0}, {0.0, 0}}).mean));
}

}  // namespace
}  // namespace amalgam
