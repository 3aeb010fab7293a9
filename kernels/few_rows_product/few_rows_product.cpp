// SPDX-License-Identifier: Apache-2.0
// The public function on CPUs: it calls the version for this processor.
#include "kernels/few_rows_product/few_rows_product.h"

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void few_rows_product(const FewRowsProduct&, int);)

void few_rows_product(const FewRowsProduct& arguments, int threads) {
    AMALGAM_VARIANT(Isa::automatic, few_rows_product)(arguments, threads);
}

}  // namespace amalgam::kernels
