// SPDX-License-Identifier: Apache-2.0
#pragma once

// A problem of gated_delta_rule_case.h on the GPU.

#include "delta_rule_cuda_case.h"
#include "kernels/gated_delta_rule/gated_delta_rule_cuda.h"

namespace amalgam::kernels {

struct GatedDeltaRuleCuda {
    static constexpr auto workspace_bytes = cuda::gated_delta_rule_workspace_bytes;
    static constexpr auto scratch_bytes = cuda::gated_delta_rule_scratch_bytes;
    static constexpr auto forward = cuda::gated_delta_rule_forward;
    static constexpr auto backward = cuda::gated_delta_rule_backward;
    static constexpr auto decode = cuda::gated_delta_rule_decode;
};

inline NamedValues run_cuda(GatedDeltaRuleCase& c, bool aligned) {
    return run_on_cuda<GatedDeltaRuleCuda>(c, aligned);
}
inline NamedValues run_cuda_decode(GatedDeltaRuleCase& c) {
    return run_decode_on_cuda<GatedDeltaRuleCuda>(c);
}

}  // namespace amalgam::kernels
