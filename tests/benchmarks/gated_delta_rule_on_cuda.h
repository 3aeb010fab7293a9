// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "kernels/gated_delta_rule/gated_delta_rule_cuda.h"

namespace amalgam::benchmarks {

/// A rule of delta_rule_timing.h.
struct GatedDeltaRule {
    using Options = kernels::GatedDeltaRuleOptions;
    static constexpr const char* name = "";
    static constexpr auto workspace_bytes = kernels::cuda::gated_delta_rule_workspace_bytes;
    static constexpr auto scratch_bytes = kernels::cuda::gated_delta_rule_scratch_bytes;
    static constexpr auto forward = kernels::cuda::gated_delta_rule_forward;
    static constexpr auto backward = kernels::cuda::gated_delta_rule_backward;
    static constexpr auto decode = kernels::cuda::gated_delta_rule_decode;
    static int64_t gates(int64_t) { return 1; }
};

}  // namespace amalgam::benchmarks
