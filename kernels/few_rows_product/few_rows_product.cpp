// SPDX-License-Identifier: Apache-2.0
// The public function on CPUs: it calls the version for this processor.
#include "kernels/few_rows_product/few_rows_product.h"

#include "kernels/isa/dispatch.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void few_rows_product(const FewRowsProduct&, int);)
#ifdef AMALGAM_KERNELS_X86
namespace amx_bf16 {
void few_rows_product_in_bfloat16(const FewRowsProduct&, int);
}
#endif

void few_rows_product(const FewRowsProduct& arguments, int threads) {
#ifdef AMALGAM_KERNELS_X86
    if (arguments.type == ElementType::bfloat16 && resolve_isa(Isa::automatic) == Isa::amx_bf16)
        return amx_bf16::few_rows_product_in_bfloat16(arguments, threads);
#endif
    AMALGAM_VARIANT(Isa::automatic, few_rows_product)(arguments, threads);
}

}  // namespace amalgam::kernels
