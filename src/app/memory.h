// SPDX-License-Identifier: Apache-2.0
// How the process returns memory to the system: not at all. Training frees and takes the same large tensors every step,
// and glibc would unmap and fault them in again each time.
#pragma once

namespace amalgam {

/// To be called before the first large allocation.
void keep_freed_memory();

}  // namespace amalgam
