// SPDX-License-Identifier: Apache-2.0
// What linear mixers remember of sequences that are continued.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

struct StateCache : MixerCache {
    /// Logits at which a token leaves the state of a delta rule as it was: softplus and sigmoid of them are zero.
    static constexpr double no_effect = -1e4;

    at::Tensor states;   // fp32 [slots, heads, key dim, value dim]
    at::Tensor recents;  // the last inputs of a short convolution, [slots, taps - 1, channels]; undefined without one

    /// Zeroed, on the device and in the type of `like`; channels 0: no convolution.
    StateCache(int64_t slots, int64_t heads, int64_t head_dim, int64_t channels, const at::TensorOptions& like);
    void copy(const at::Tensor& from, const at::Tensor& to, int64_t tokens) override;

    /// As sequences enter the chunk: zeros, or nothing of the convolution, where they begin.
    at::Tensor states_before(const CacheChunk& chunk) const;
    at::Tensor recents_before(const CacheChunk& chunk) const;
    /// What the convolution goes on from behind those of its `inputs` [batch, time, channels] that count; `before` as
    /// it entered the chunk.
    at::Tensor recents_after(const CacheChunk& chunk, const at::Tensor& before, const at::Tensor& inputs) const;
};

}  // namespace amalgam
