// SPDX-License-Identifier: Apache-2.0
// README.md of an exported folder: what the model is, and what its users must know and would not be told otherwise.
#pragma once

#include <string>

#include "specification/model_spec.h"

namespace amalgam {

/// What every such README.md begins with: an earlier export is known by it.
constexpr const char* export_heading = "# A hybrid model made by Amalgam";

std::string export_readme(const ModelSpec& spec, const std::string& format);

}  // namespace amalgam
