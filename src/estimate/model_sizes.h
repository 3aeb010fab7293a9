// SPDX-License-Identifier: Apache-2.0
// Sizes of a model and of its hybrids: parameters, arithmetic, numbers kept for the backward pass. The one place for
// these formulas; sizes only, so that a login node can use them. Results are doubles: flop exceed int64.
//
// Symbols: L layers, H hidden size, I intermediate size, V vocabulary, h query heads, g key/value heads, d head
// dimension, A = h d, s sequence length.
//
// Parameters   (src/model/{softmax_attention,gated_delta_net,gated_linear_attention,block,causal_lm}.cpp add them)
//              softmax mixer 2 H A + 2 H g d (W_q, W_o; W_k, W_v). Linear mixer 4 H A (W_q, W_k, W_v, W_o), + H A with
//              output gate, + d (norm); gated delta net + 2 H h + 2 h (beta, decay), + 12 A with convolution; gated
//              linear attention + 16 H + 17 A (decay). MLP 3 H I, norms 2 H per block. Embedding V H, head V H unless
//              tied, final norm H. Projection biases are left out (< 0.01 %).
// Arithmetic   forward, per token: 2 flop per element of every matrix of the blocks and the head. Softmax: + 2 A s (Q
// K^T
//              and P V over the s / 2 positions before a token in the mean). Gated delta rule: + h (6 d^2 + 512 d),
//              gated linear attention + h (4 d^2 + 256 d), the chunk forms with chunks of 64. Training costs three
//              forwards.
// Activations  bytes kept for the backward pass, per token and block; b bytes of a number in the compute type. The
//              kernels save their inputs, not what is between (src/model/{operations,gated_delta_rule}.cpp):
//              norms and residuals 4 b H (x, normed, x + mixed, normed), MLP 3 b I (gate and up, their product)
//              softmax mixer b (3 A + 3 g d) (fused projection, rotated q and k, output)
//              linear mixer b (5 A + A with gate) (q, k, v, gate; the rule's output, normed) and the rule's states
//              b A (d / 64 + 1) (d x d numbers and 64 values for every 64 tokens of a head). Gated linear attention
//              keeps the logits of its decays instead of the values: as much.
#pragma once

#include <cstdint>

#include "job/job.h"
#include "specification/model_shape.h"

namespace amalgam {

class ModelSizes {
  public:
    ModelSizes(const ModelShape& shape, const StudentJob& student);

    double layers() const { return layers_; }
    double hidden() const { return hidden_; }
    double vocabulary() const { return vocabulary_; }

    // Parameters.
    double softmax_mixer() const;
    double linear_mixer() const;
    double softmax_block() const { return softmax_mixer() + block_rest(); }
    double linear_block() const { return linear_mixer() + block_rest(); }
    double largest_block(double kept) const;
    double head() const { return hidden_ * vocabulary_; }
    /// Embedding, final norm and head: what is outside the blocks.
    double outside() const { return head() * (tied_ ? 1 : 2) + hidden_; }
    /// The model that keeps softmax in `kept` layers.
    double parameters(double kept) const;

    // Forward flop per token, in sequences of `length` tokens.
    double softmax_mixer_flops(double length) const;
    double linear_mixer_flops() const;
    double head_flops() const { return 2 * head(); }
    double block_flops(double kept, double length) const;  // of all blocks
    double model_flops(double kept, double length) const { return block_flops(kept, length) + head_flops(); }

    // Bytes kept per token for the backward pass; `compute`: bytes of a number in the compute type (b).
    double softmax_block_activations(double compute) const;
    double linear_block_activations(double compute) const;
    double linear_mixer_activations(double compute) const;
    /// What its backward pass adds: gradients of the fused projection and of the rule's output; of the decays' logits.
    double linear_mixer_gradients(double compute) const {
        return compute * ((output_gate_ ? 6 : 5) + (linear_attention_ ? 1 : 0)) * width_;
    }
    /// Of the block that keeps most.
    double largest_block_activations(double kept, double compute) const;
    double activations(double kept, double compute) const;  // of all blocks

  private:
    double block_rest() const { return 3 * hidden_ * intermediate_ + 2 * hidden_; }
    double rest_activations() const { return 4 * hidden_ + 3 * intermediate_; }

    double hidden_, intermediate_, layers_, vocabulary_, heads_, head_dim_, width_, key_value_width_;
    bool tied_, linear_attention_, output_gate_, output_norm_, short_convolution_;
};

}  // namespace amalgam
