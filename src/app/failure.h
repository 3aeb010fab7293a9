// SPDX-License-Identifier: Apache-2.0
// What a user is told of an exception that ends the program.
#pragma once

#include <exception>
#include <string>

#include "system/error.h"

namespace amalgam {

struct Failure {
    std::string message;
    ExitCode code;
};

/// Of LibTorch's exceptions without the stack that comes with them; of those for lack of memory, what can be done.
Failure failure_of(const std::exception& error);

}  // namespace amalgam
