// SPDX-License-Identifier: Apache-2.0
// What can be chosen of Kimi Delta Attention (student.*).
#pragma once

#include "options/options.h"

namespace amalgam {

struct KimiDeltaAttentionOptions {
    bool short_convolution = false;  // depthwise causal convolution on q, k, v, of short_convolution_taps taps
    double lower_bound = 0.0;        // of the log decays, by a sigmoid; 0: none, by a softplus

    KimiDeltaAttentionOptions() = default;
    /// What `given` does not name has its default, also in checkpoints that are older than an option.
    explicit KimiDeltaAttentionOptions(const Options& given) {
        read_option(given, "short_convolution", short_convolution);
        read_option(given, "lower_bound", lower_bound);
    }
};

}  // namespace amalgam
