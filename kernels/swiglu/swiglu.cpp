// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/swiglu/swiglu.h"

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void swiglu_forward(const SwigluForward&, int); void swiglu_backward(const SwigluBackward&, int);)

void swiglu_forward(const SwigluForward& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, swiglu_forward)(arguments, threads);
}

void swiglu_backward(const SwigluBackward& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, swiglu_backward)(arguments, threads);
}

}  // namespace amalgam::kernels
