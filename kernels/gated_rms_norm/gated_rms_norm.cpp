// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/gated_rms_norm/gated_rms_norm.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void gated_rms_norm_forward(const GatedRmsNormForward&, int);
                 void gated_rms_norm_backward(const GatedRmsNormBackward&, int);)

void gated_rms_norm_forward(const GatedRmsNormForward& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, gated_rms_norm_forward)(arguments, threads);
}

void gated_rms_norm_backward(const GatedRmsNormBackward& arguments, int threads) {
    require(!arguments.z || arguments.z_gradient, "gated_rms_norm",
            "z without z_gradient (the backward of a gate writes it) pass `z_gradient`");
    AMALGAM_VARIANT(Isa::automatic, gated_rms_norm_backward)(arguments, threads);
}

}  // namespace amalgam::kernels
