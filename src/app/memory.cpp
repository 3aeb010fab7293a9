// SPDX-License-Identifier: Apache-2.0
#include "app/memory.h"

#include <features.h>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

namespace amalgam {

void keep_freed_memory() {
#if defined(__GLIBC__)
    mallopt(M_MMAP_MAX, 0);         // large blocks come from the heap, which keeps them
    mallopt(M_TRIM_THRESHOLD, -1);  // and does not shrink
#endif
}

}  // namespace amalgam
