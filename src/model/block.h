// SPDX-License-Identifier: Apache-2.0
// One Transformer block, pre-norm, as in Llama:
//     y = x + mixer(rms_norm(x));   block(x) = y + down(silu(gate(rms_norm(y))) * up(rms_norm(y)))
// Activations are [batch, time, hidden] in the model's compute type; the norms compute in fp32.
#pragma once

#include "mixers/mixer.h"

namespace amalgam {

class Block {
  public:
    /// Registers the block's parameters in `store` under "model.layers.LAYER.", its mixer the one that the layout
    /// names. Throws what the mixer throws.
    Block(const ModelSpec& spec, int64_t layer, ParameterStore& store);

    /// What the mixer sees: the normed input, shaped as x.
    at::Tensor mixer_input(const at::Tensor& x) const;
    /// The rest of the block, given its input x and the mixer's output, both [batch, time, hidden].
    at::Tensor finish(const at::Tensor& x, const at::Tensor& mixed) const;
    /// The whole block (Mixer::forward).
    at::Tensor forward(const at::Tensor& x, const SequencePlaces& places) const;
    /// The whole block for one token each of several sequences (Mixer::forward_step), x [batch, 1, hidden].
    at::Tensor forward_step(const at::Tensor& x, const RotaryTables& rotary, MixerCache& cache,
                            const CacheStep& step) const;

    const Mixer& mixer() const { return *mixer_; }

  private:
    double norm_eps_;
    const Parameter *mixer_norm_, *mlp_norm_, *gate_up_, *gate_up_bias_ = nullptr, *down_, *down_bias_ = nullptr;
    std::unique_ptr<Mixer> mixer_;
};

}  // namespace amalgam
