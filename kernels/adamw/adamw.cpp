// SPDX-License-Identifier: Apache-2.0
// The public functions on CPUs: they check what would read outside the arrays and call the version for this processor.
#include "kernels/adamw/adamw.h"

#include "kernels/isa/dispatch.h"
#include "kernels/require.h"

namespace amalgam::kernels {

AMALGAM_VARIANTS(void adamw_step(const AdamwStep&, int); double sum_of_squares(const float*, std::int64_t, int);)

void adamw_step(const AdamwStep& arguments, int threads) {
    require(arguments.step >= 1, "adamw",
            "step is below 1 (the bias correction divides by 1 - beta^step) count from 1");
    AMALGAM_VARIANT(Isa::automatic, adamw_step)(arguments, threads);
}

double sum_of_squares(const float* values, std::int64_t count, int threads) {
    return AMALGAM_VARIANT(Isa::automatic, sum_of_squares)(values, count, threads);
}

}  // namespace amalgam::kernels
