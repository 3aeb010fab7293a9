// SPDX-License-Identifier: Apache-2.0
// Messages quote names and pieces of files, and a damaged file may hold any bytes.
#pragma once

#include <string>
#include <string_view>

namespace amalgam {

/// The message with every byte that is not part of a UTF-8 character, and every control character but newline and tab,
/// as \x and two hexadecimal digits.
std::string printable(std::string_view message);

}  // namespace amalgam
