// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/rms_norm/rms_norm.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void rms_norm_forward(const RmsNormForward&, int);
                 void rms_norm_backward(const RmsNormBackward&, int);)

void rms_norm_forward(const RmsNormForward& arguments, int threads) {
    require(!arguments.residual || arguments.sum, "rms_norm",
            "a residual without a sum (the backward needs the sum) pass `sum`, if need be the residual itself");
    AMALGAM_VARIANT(Isa::automatic, rms_norm_forward)(arguments, threads);
}

void rms_norm_backward(const RmsNormBackward& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, rms_norm_backward)(arguments, threads);
}

}  // namespace amalgam::kernels
