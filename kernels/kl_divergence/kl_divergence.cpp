// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/kl_divergence/kl_divergence.h"

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void kl_divergence(const KlDivergence&, int);
                 void kl_divergence_with_gradient(const KlDivergenceGradient&, int);)

void kl_divergence(const KlDivergence& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, kl_divergence)(arguments, threads);
}

void kl_divergence_with_gradient(const KlDivergenceGradient& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, kl_divergence_with_gradient)(arguments, threads);
}

}  // namespace amalgam::kernels
