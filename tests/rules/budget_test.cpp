// SPDX-License-Identifier: Apache-2.0
#include "rules/budget.h"

#include "../storage/temporary_folder.h"

namespace amalgam {
namespace {

using test::expect_error;

TEST(Budget, of_the_paper) {
    // Sizes of the layer sets that the paper released.
    EXPECT_EQ(kept_layers("12.5%", 36), 5);
    EXPECT_EQ(kept_layers("25%", 36), 9);
    EXPECT_EQ(kept_layers("33%", 36), 12);
    EXPECT_EQ(kept_layers("50%", 36), 18);
    EXPECT_EQ(kept_layers("12.5%", 28), 4);
    EXPECT_EQ(kept_layers("0.25", 28), 7);
    EXPECT_EQ(kept_layers("0.33", 28), 9);
}

TEST(Budget, counts_and_ratios) {
    EXPECT_EQ(kept_layers("0", 28), 0);
    EXPECT_EQ(kept_layers("1", 28), 1);
    EXPECT_EQ(kept_layers("1.0", 28), 28);
    EXPECT_EQ(kept_layers("28", 28), 28);
    EXPECT_EQ(kept_layers("100%", 28), 28);
}

TEST(Budget, anything_else_is_refused) {
    for (const std::string wrong :
         {"", "%", "-1", "-5%", "x", "7 layers", "1e1", "inf", "nan", "inf%", "0x7", "25%%", "1000000000"})
        expect_error([&] { kept_layers(wrong, 28); }, ExitCode::bad_input, {"select.budget is \"" + wrong + "\""});
    expect_error([] { kept_layers("29", 28); }, ExitCode::bad_input, {"is 29 but the teacher has 28 layers"});
    expect_error([] { kept_layers("101%", 28); }, ExitCode::bad_input, {"more than all layers"});
    expect_error([] { kept_layers("7.0", 28); }, ExitCode::bad_input, {"a count has no decimal point"});
}

}  // namespace
}  // namespace amalgam
