// SPDX-License-Identifier: Apache-2.0
// Checks of arguments.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace amalgam::kernels {

/// Throws std::invalid_argument "OPERATION: PROBLEM" unless the condition holds.
inline void require(bool condition, std::string_view operation, std::string_view problem) {
    if (!condition) throw std::invalid_argument(std::string(operation) + ": " + std::string(problem));
}

}  // namespace amalgam::kernels
