// SPDX-License-Identifier: Apache-2.0
// Where a command is to write its result: looked at before the work that goes into it.
#pragma once

#include <string>

namespace amalgam {

/// Throws Error(bad_input), naming --out, unless a file can be made there; what is there already must be an earlier
/// result of this file type (none is taken where it is empty), since it would be lost.
void expect_place_for(const std::string& out, const std::string& filetype = "");

}  // namespace amalgam
