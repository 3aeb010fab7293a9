// SPDX-License-Identifier: Apache-2.0
#include "system/printable.h"

#include <gtest/gtest.h>

namespace amalgam {
namespace {

TEST(Printable, leaves_text_alone) {
    for (const char* text : {"", "layer 5\n\tKL 0.1", "Grüße, 你好, 😀", "C:\\x41"}) EXPECT_EQ(printable(text), text);
}

TEST(Printable, shows_bytes_that_are_no_text) {
    EXPECT_EQ(printable("a\xA2z"), "a\\xa2z");
    EXPECT_EQ(printable("\xC3"), "\\xc3") << "cut off";
    EXPECT_EQ(printable("\xE4\xBDz"), "\\xe4\\xbdz") << "cut off by another character";
    EXPECT_EQ(printable("\xC0\x80\xFF"), "\\xc0\\x80\\xff");
    EXPECT_EQ(printable("\x1B[31mred\x7F\r"), "\\x1b[31mred\\x7f\\x0d") << "terminals obey these";
    EXPECT_EQ(printable(std::string("\0end", 4)), "\\x00end");
}

}  // namespace
}  // namespace amalgam
