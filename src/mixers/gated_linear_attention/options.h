// SPDX-License-Identifier: Apache-2.0
// What can be chosen of gated linear attention (student.*): gla_v1 of the paper's code has both.
#pragma once

#include "options/options.h"

namespace amalgam {

struct GatedLinearAttentionOptions {
    bool output_gate = true;  // SiLU(W_g x) on the normed output
    bool output_norm = true;  // RMSNorm per head on the output

    GatedLinearAttentionOptions() = default;
    /// What `given` does not name has its default, also in checkpoints that are older than an option.
    explicit GatedLinearAttentionOptions(const Options& given) {
        read_option(given, "output_gate", output_gate);
        read_option(given, "output_norm", output_norm);
    }
};

}  // namespace amalgam
