// SPDX-License-Identifier: Apache-2.0
// How much host memory is still free.
#pragma once

#include <cstdint>

namespace amalgam {

/// Bytes that processes of this node can still take without swapping: what the kernel says, or what the limit of this
/// process's control group (batch systems and containers set one) leaves, if that is less. 0 if it cannot be found out.
int64_t available_memory();

}  // namespace amalgam
