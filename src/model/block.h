// SPDX-License-Identifier: Apache-2.0
// One Transformer block: norm, mixer, residual, norm, MLP (SwiGLU), residual.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

class Block {
  public:
    Block(const ModelSpec& spec, int64_t layer, ParameterStore& store);

    /// What the mixer sees: the normed input.
    at::Tensor mixer_input(const at::Tensor& x) const;
    /// The rest of the block, given the mixer's output.
    at::Tensor finish(const at::Tensor& x, const at::Tensor& mixed) const;
    at::Tensor forward(const at::Tensor& x, const RotaryTables& rotary, MixerCache* cache) const;

    const Mixer& mixer() const { return *mixer_; }

  private:
    double norm_eps_;
    const Parameter *mixer_norm_, *mlp_norm_, *gate_up_, *gate_up_bias_ = nullptr, *down_, *down_bias_ = nullptr;
    std::unique_ptr<Mixer> mixer_;
};

}  // namespace amalgam
