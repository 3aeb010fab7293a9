// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/silu_convolution/silu_convolution.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void silu_convolution_forward(const SiluConvolutionForward&, int);
                 void silu_convolution_backward(const SiluConvolutionBackward&, int);)

void silu_convolution_forward(const SiluConvolutionForward& arguments, int threads) {
    require(arguments.taps >= 2 && arguments.taps <= 4, "silu_convolution",
            "the number of taps is not 2, 3 or 4 (no kernel is compiled for it)");
    AMALGAM_VARIANT(Isa::automatic, silu_convolution_forward)(arguments, threads);
}

void silu_convolution_backward(const SiluConvolutionBackward& arguments, int threads) {
    require(arguments.taps >= 2 && arguments.taps <= 4, "silu_convolution",
            "the number of taps is not 2, 3 or 4 (no kernel is compiled for it)");
    AMALGAM_VARIANT(Isa::automatic, silu_convolution_backward)(arguments, threads);
}

}  // namespace amalgam::kernels
