// SPDX-License-Identifier: Apache-2.0
#include "system/error.h"

#include <gtest/gtest.h>

namespace amalgam {
namespace {

TEST(Error, require_throws_bad_input_with_all_parts) {
    EXPECT_NO_THROW(require(true, "never seen"));
    try {
        require(false, "hidden_size is ", 3, " (even is needed)");
        FAIL() << "require(false) returned";
    } catch (const Error& error) {
        EXPECT_STREQ(error.what(), "hidden_size is 3 (even is needed)");
        EXPECT_EQ(error.code(), ExitCode::bad_input);
    }
}

TEST(Error, code_defaults_to_failure) {
    EXPECT_EQ(Error("x").code(), ExitCode::failure);
}

}  // namespace
}  // namespace amalgam
