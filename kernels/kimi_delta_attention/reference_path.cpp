// SPDX-License-Identifier: Apache-2.0
#include "kernels/gated_delta_rule/reference_path.h"

#include "kernels/kimi_delta_attention/kimi_delta_attention.h"
#include "kernels/kimi_delta_attention/reference.h"

namespace amalgam::kernels {
namespace {

struct Rule {
    using Options = KimiDeltaAttentionOptions;
    using Sequence = KimiDeltaAttentionSequence<float>;

    static int64_t gates_of(const GatedDeltaRuleShape& shape) { return shape.key_dim; }
    static void take_parameters(Sequence& sequence, const GatedDeltaRuleShape& shape, const Options& options,
                                const GatedDeltaRuleInputs& inputs, int64_t head) {
        sequence.lower_bound = options.lower_bound;
        sequence.A_log = inputs.A_log[head];
        const float* dt_bias = inputs.dt_bias + head * shape.key_dim;
        sequence.dt_bias.assign(dt_bias, dt_bias + shape.key_dim);
    }
    static auto run(const Sequence& sequence) { return kimi_delta_attention_reference(sequence); }
    static auto run_backward(const Sequence& sequence, const std::vector<float>& d_o,
                             const std::vector<float>& d_final) {
        return kimi_delta_attention_reference_backward(sequence, d_o, d_final);
    }
    static std::vector<float> dt_bias(const KimiDeltaAttentionSequenceGradients<float>& gradients) {
        return gradients.dt_bias;
    }
};

}  // namespace

namespace portable {

extern const ChunkKernelsOf<KimiDeltaAttentionOptions> kimi_chunk_kernels;
const ChunkKernelsOf<KimiDeltaAttentionOptions> kimi_chunk_kernels = reference::Path<Rule>::kernels;

}  // namespace portable
}  // namespace amalgam::kernels
