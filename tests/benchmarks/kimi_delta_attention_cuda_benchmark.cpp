// SPDX-License-Identifier: Apache-2.0
// Times Kimi Delta Attention on the GPU (delta_rule_timing.h), and the gated delta rule beside it on the same shapes.
//
// usage: kimi_delta_attention_cuda_benchmark [SEQUENCES TIME HEADS DIM [silu|packed|decode]]  default: a list of shapes
// packed: in one row, of lengths that rise evenly from a quarter of TIME to seven quarters. decode: TIME is ignored.

#include "delta_rule_timing.h"
#include "gated_delta_rule_on_cuda.h"
#include "kernels/kimi_delta_attention/kimi_delta_attention_cuda.h"

namespace {

using namespace amalgam::benchmarks;

struct KimiDeltaAttention {
    using Options = amalgam::kernels::KimiDeltaAttentionOptions;
    static constexpr const char* name = "";
    static constexpr auto workspace_bytes = amalgam::kernels::cuda::kimi_delta_attention_workspace_bytes;
    static constexpr auto scratch_bytes = amalgam::kernels::cuda::kimi_delta_attention_scratch_bytes;
    static constexpr auto forward = amalgam::kernels::cuda::kimi_delta_attention_forward;
    static constexpr auto backward = amalgam::kernels::cuda::kimi_delta_attention_backward;
    static constexpr auto decode = amalgam::kernels::cuda::kimi_delta_attention_decode;
    static int64_t gates(int64_t dim) { return dim; }
};

struct GatedDeltaRuleBeside : GatedDeltaRule {
    static constexpr const char* name = "gated delta rule ";
};

}  // namespace

int main(int argc, char** argv) {
    const double speed = copy_bytes_per_nanosecond();
    print_header(speed);
    if (argc > 4) {
        time_arguments<KimiDeltaAttention>(argc, argv, speed);
        time_arguments<GatedDeltaRuleBeside>(argc, argv, speed);
    } else {
        time_all<KimiDeltaAttention>(speed);
        time_all<GatedDeltaRuleBeside>(speed);
    }
    return 0;
}
