// SPDX-License-Identifier: Apache-2.0
#pragma once

// A random problem for Kimi Delta Attention, run by any kernel variant and by the fp64 reference.

#include "gated_delta_rule_case.h"
#include "kernels/kimi_delta_attention/kimi_delta_attention.h"
#include "kernels/kimi_delta_attention/reference.h"

namespace amalgam::kernels {

struct KimiDeltaAttentionKind {
    using Options = KimiDeltaAttentionOptions;
    using Sequence = KimiDeltaAttentionSequence<double>;
    static constexpr auto workspace_bytes = kimi_delta_attention_workspace_bytes;
    static constexpr auto forward = kimi_delta_attention_forward;
    static constexpr auto backward = kimi_delta_attention_backward;
    static constexpr auto decode = kimi_delta_attention_decode;
    static constexpr auto reference = kimi_delta_attention_reference<double>;
    static constexpr auto reference_backward = kimi_delta_attention_reference_backward<double>;

    static int64_t gates(const GatedDeltaRuleShape& shape) { return shape.key_dim; }
    static void set_gate(Sequence& sequence, const Options& options, const float* dt_bias) {
        sequence.lower_bound = options.lower_bound;
        sequence.dt_bias.assign(dt_bias, dt_bias + sequence.key_dim);
    }
    static std::vector<double> dt_bias(const KimiDeltaAttentionSequenceGradients<double>& gradients) {
        return gradients.dt_bias;
    }
};

using KimiDeltaAttentionCase = DeltaRuleCase<KimiDeltaAttentionKind>;

}  // namespace amalgam::kernels
