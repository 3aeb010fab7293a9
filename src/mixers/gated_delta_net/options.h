// SPDX-License-Identifier: Apache-2.0
// What can be chosen of a gated delta net (student.*): gdn_v1 to gdn_v6 of the paper's code.
#pragma once

#include "options/options.h"

namespace amalgam {

struct GatedDeltaNetOptions {
    bool short_convolution = false;  // depthwise causal convolution on q, k, v, of short_convolution_taps taps
    bool output_gate = true;         // SiLU(W_g x) on the normed output
    bool output_norm = true;         // RMSNorm per head on the output
    bool activation = true;          // SiLU on q, k, v
    bool rope = false;               // rotary embedding on q and k

    GatedDeltaNetOptions() = default;
    /// What `given` does not name has its default, also in checkpoints that are older than an option.
    explicit GatedDeltaNetOptions(const Options& given) {
        read_option(given, "short_convolution", short_convolution);
        read_option(given, "output_gate", output_gate);
        read_option(given, "output_norm", output_norm);
        read_option(given, "activation", activation);
        read_option(given, "rope", rope);
    }
};

}  // namespace amalgam
