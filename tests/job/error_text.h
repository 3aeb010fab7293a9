// SPDX-License-Identifier: Apache-2.0
// The text of the Error(bad_input) that an action must throw.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "system/error.h"

namespace amalgam {

inline std::string error_text(const std::function<void()>& action) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ExitCode::bad_input);
        return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
}

inline bool contains(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

}  // namespace amalgam
