// SPDX-License-Identifier: Apache-2.0
// `amalgam inspect`: attributes and datasets of one of our HDF5 files, and its figures where they are few.
#pragma once

#include <string>

namespace amalgam {

void inspect_command(const std::string& file);

}  // namespace amalgam
