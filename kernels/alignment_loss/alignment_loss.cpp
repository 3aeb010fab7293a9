// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/alignment_loss/alignment_loss.h"

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void alignment_loss(const AlignmentLoss&, int);)

void alignment_loss(const AlignmentLoss& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, alignment_loss)(arguments, threads);
}

}  // namespace amalgam::kernels
