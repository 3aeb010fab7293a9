// SPDX-License-Identifier: Apache-2.0
// Sizes of a model and of its hybrids: parameters, arithmetic, numbers kept for the backward pass. Mixers bring their
// own formulas in their declarations, the rest is here. Sizes only, so that a login node can use them. Results are
// doubles: flop exceed int64.
//
// Symbols: L layers, H hidden size, I intermediate size, V vocabulary, b bytes of a number in the compute type.
//
// Parameters   MLP 3 H I, norms 2 H per block. Embedding V H, head V H unless tied, final norm H. Biases of MLPs are
//              left out (< 0.01 %).
// Arithmetic   forward, per token: 2 flop per element of every matrix of the blocks and the head. Training costs three
//              forwards.
// Activations  bytes kept for the backward pass, per token and block. The kernels save their inputs, not what is
//              between (operations/operations.cpp): norms and residuals 4 b H (x, normed, x + mixed, normed), MLP
//              3 b I (gate and up, their product).
#pragma once

#include "mixers/declaration.h"

namespace amalgam {

class ModelSizes {
  public:
    /// Of hybrids of `teacher` whose linear layers have the mixer of that name.
    ModelSizes(const ModelConfig& teacher, const std::string& mixer, const Options& options);

    double layers() const { return layers_; }
    double hidden() const { return hidden_; }
    double intermediate() const { return intermediate_; }
    double vocabulary() const { return vocabulary_; }

    // Parameters.
    double softmax_mixer_size() const;
    double linear_mixer() const;
    double softmax_block() const { return softmax_mixer_size() + block_rest(); }
    double linear_block() const { return linear_mixer() + block_rest(); }
    double largest_block(double kept) const;
    double head() const { return hidden_ * vocabulary_; }
    /// Embedding, final norm and head: what is outside the blocks.
    double outside() const { return head() * (teacher_.tied_head ? 1 : 2) + hidden_; }
    /// The model that keeps softmax in `kept` layers.
    double parameters(double kept) const;

    // Forward flop per token, in sequences of `length` tokens.
    double softmax_mixer_flops(double length) const;
    double linear_mixer_flops(double length) const;
    double head_flops() const { return 2 * head(); }
    double block_flops(double kept, double length) const;  // of all blocks
    double model_flops(double kept, double length) const { return block_flops(kept, length) + head_flops(); }

    // Bytes kept per token for the backward pass; `compute`: bytes of a number in the compute type (b).
    double softmax_block_activations(double compute) const;
    double linear_block_activations(double compute) const;
    double linear_mixer_activations(double compute) const;
    /// What the mixer's backward pass adds to these.
    double linear_mixer_gradients(double compute) const;
    /// Of the block that keeps most.
    double largest_block_activations(double kept, double compute) const;
    double activations(double kept, double compute) const;  // of all blocks

    /// Bytes of the keys and values of `before` tokens before a piece of a sequence that a softmax layer attends to:
    /// with a sliding window, of those in it (the widest of all layers).
    double keys_before(double before, double compute) const;
    /// Bytes of so many tokens' queries to a softmax layer, or of what they find.
    double queries(double tokens, double compute) const;
    /// Whether some softmax layer sees all of sequences of `length` tokens.
    bool has_unwindowed_softmax(int64_t length) const;

  private:
    double block_rest() const { return 3 * hidden_ * intermediate_ + 2 * hidden_; }
    double rest_activations() const { return 4 * hidden_ + 3 * intermediate_; }

    ModelConfig teacher_;
    const MixerDeclaration &softmax_, &linear_;
    Options options_;
    double hidden_, intermediate_, layers_, vocabulary_;
};

}  // namespace amalgam
