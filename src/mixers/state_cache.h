// SPDX-License-Identifier: Apache-2.0
// What delta rules remember of sequences that are continued.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

struct StateCache : MixerCache {
    at::Tensor states;   // fp32 [slots, heads, key dim, value dim]
    at::Tensor recents;  // the last inputs of a short convolution, [slots, taps - 1, channels]; undefined without one

    /// Zeroed, on the device and in the type of `like`; channels 0: no convolution.
    StateCache(int64_t slots, int64_t heads, int64_t head_dim, int64_t channels, const at::TensorOptions& like);
    void copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) override;

    /// As sequences enter the chunk: zeros, or nothing of the convolution, where they begin.
    at::Tensor states_before(const CacheChunk& chunk) const;
    at::Tensor recents_before(const CacheChunk& chunk) const;
};

}  // namespace amalgam
