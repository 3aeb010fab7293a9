// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/rotary/rotary.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void rotary_forward(const Rotary&, int); void rotary_backward(const Rotary&, int);)

void rotary_forward(const Rotary& arguments, int threads) {
    require(arguments.width % 2 == 0, "rotary", "width is odd (its halves are rotated into each other)");
    AMALGAM_VARIANT(Isa::automatic, rotary_forward)(arguments, threads);
}

void rotary_backward(const Rotary& arguments, int threads) {
    require(arguments.width % 2 == 0, "rotary", "width is odd (its halves are rotated into each other)");
    AMALGAM_VARIANT(Isa::automatic, rotary_backward)(arguments, threads);
}

}  // namespace amalgam::kernels
