// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/reference_path.h"

#include "kernels/gated_delta_rule/reference.h"

namespace amalgam::kernels {
namespace {

struct Rule {
    using Options = GatedDeltaRuleOptions;
    using Sequence = GatedDeltaRuleSequence<float>;

    static int64_t gates_of(const GatedDeltaRuleShape&) { return 1; }
    static void take_parameters(Sequence& sequence, const GatedDeltaRuleShape&, const Options&,
                                const GatedDeltaRuleInputs& inputs, int64_t head) {
        sequence.A_log = inputs.A_log[head];
        sequence.dt_bias = inputs.dt_bias[head];
    }
    static auto run(const Sequence& sequence) { return gated_delta_rule_reference(sequence); }
    static auto run_backward(const Sequence& sequence, const std::vector<float>& d_o,
                             const std::vector<float>& d_final) {
        return gated_delta_rule_reference_backward(sequence, d_o, d_final);
    }
    static std::vector<float> dt_bias(const GatedDeltaRuleSequenceGradients<float>& gradients) {
        return {gradients.dt_bias};
    }
};

}  // namespace

namespace portable {

extern const ChunkKernels chunk_kernels;
const ChunkKernels chunk_kernels = reference::Path<Rule>::kernels;

}  // namespace portable
}  // namespace amalgam::kernels
