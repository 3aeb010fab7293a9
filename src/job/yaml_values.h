// SPDX-License-Identifier: Apache-2.0
// Numbers as job files write them, and what stands in a YAML node, for messages.
#pragma once

#include <yaml-cpp/yaml.h>

#include <cstdint>
#include <optional>
#include <string>

namespace amalgam {

/// Finite ones only.
std::optional<double> parse_real(const std::string& word);

/// May be written as 100000000 or as 1e8.
std::optional<int64_t> parse_integer(const std::string& word);

/// "\"5\"", "a list", "a section" or "empty".
std::string found(const YAML::Node& node);

}  // namespace amalgam
