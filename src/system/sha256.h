// SPDX-License-Identifier: Apache-2.0
// SHA-256 (FIPS 180-4): tells whether two tokenizers are the same file.
#pragma once

#include <string>
#include <string_view>

namespace amalgam {

/// 64 hexadecimal digits, lower case.
std::string sha256(std::string_view bytes);

}  // namespace amalgam
