// SPDX-License-Identifier: Apache-2.0
// Where the time of a piece of work on a GPU goes: device time by LibTorch operation, from LibTorch's own profiler.
#pragma once

#include <cstdint>
#include <functional>
#include <ostream>

namespace amalgam {

/// Runs `work` (which must wait for the device at its end) under the profiler and prints the `rows` operations with the
/// most device time as CSV: operation, launches, device milliseconds, share of the device time. Before them one line:
/// wall milliseconds, device milliseconds, launches, the share of the wall time in which no kernel ran (negative where
/// kernels run beside each other), the milliseconds between kernels, those in which NCCL's ran, and those in which
/// nothing but NCCL's ran; and the longest pauses between kernels.
void print_device_profile(const std::function<void()>& work, int64_t rows, std::ostream& out);

}  // namespace amalgam
