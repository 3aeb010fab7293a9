// SPDX-License-Identifier: Apache-2.0
// Times the gated delta rule on the GPU (delta_rule_timing.h).
//
// usage: gated_delta_rule_cuda_benchmark [SEQUENCES TIME HEADS DIM [silu|packed|decode]]      default: a list of shapes
// packed: in one row, of lengths that rise evenly from a quarter of TIME to seven quarters. decode: TIME is ignored.

#include "delta_rule_timing.h"
#include "gated_delta_rule_on_cuda.h"

int main(int argc, char** argv) {
    using namespace amalgam::benchmarks;
    const double speed = copy_bytes_per_nanosecond();
    print_header(speed);
    argc > 4 ? time_arguments<GatedDeltaRule>(argc, argv, speed) : time_all<GatedDeltaRule>(speed);
    return 0;
}
